"""Whether an ordinary user can run containers here, and what they lack: each a sentence with a remedy."""

from __future__ import annotations

import os

from towline.runtime.oci.rootless.space import Space, SpaceUnavailable
from towline.runtime.policy import Wanted

LACKS = {
    "memory": "only root may make cgroups here, which limit it: start tow as root (sudo) to have limits kept",
    "cpu": "only root may make cgroups here, which limit it: start tow as root (sudo) to have limits kept",
    "disk": "only root can mount a disk that ends; what is written is watched instead, and ended when it is "
    "too much: start tow as root (sudo)",
}


def rootless_problem(wanted: Wanted) -> str | None:
    """Makes a namespace to see; for a process that may fork. None: it can."""
    if not wanted.userns:
        return (
            "an ordinary user's containers need a user namespace: leave out TOWLINE_OCI_USERNS, or start tow "
            "as root (sudo)"
        )
    if wanted.owner != (os.geteuid(), os.getegid()):
        return (
            "an ordinary user can give files to nobody else: leave out TOWLINE_FILES_USER, or start tow as "
            "root (sudo)"
        )
    try:
        Space().descriptor()
    except SpaceUnavailable as error:
        return str(error)
    return None
