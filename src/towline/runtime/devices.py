"""Device nodes of the machine in a container: as config.json of the OCI runtime specification has them."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from towline.runtime.port import StartFailed


class DeviceEntries(NamedTuple):
    """``nodes`` for ``linux.devices``, ``rules`` for ``linux.resources.devices``."""

    nodes: list[dict[str, Any]]
    rules: list[dict[str, Any]]


def device_entries(paths: Sequence[str]) -> DeviceEntries:
    """What lets a container see and use these device nodes, and no others. Raises StartFailed."""
    nodes: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    for path in paths:
        try:
            found = os.stat(path)  # a device, by its number
        except OSError as error:
            raise StartFailed(f"The device {path} cannot be given to it: {error.strerror}.") from error
        if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            raise StartFailed(f"{path} is no device, so it cannot be given to it.")
        kind = "c" if stat.S_ISCHR(found.st_mode) else "b"
        number = {"type": kind, "major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}
        mode = stat.S_IMODE(found.st_mode)
        nodes.append({"path": path, **number, "fileMode": mode, "uid": 0, "gid": 0})
        rules.append({"allow": True, **number, "access": "rw"})
    return DeviceEntries(nodes, rules)
