"""The agent's half of a container: what a task, its image and this node make of it (``runtime_data``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Struct

from towline.model.job import TaskSpec
from towline.runtime.oci.binds import BindMount
from towline.runtime.oci.ids import Ids
from towline.runtime.oci.users import User, find_user
from towline.runtime.paths import resolve_mount
from towline.runtime.policy import Policy, refusals
from towline.runtime.port import Plan, StartFailed

OUT_TARGET = "/tow/out"
"""Where an attempt's TOW_OUT is inside its container."""

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Seccomp = Literal["filter", "section"]
"""How the engine takes the profile: compiled by us, or as a section of config.json."""


class ImageConfig(Protocol):
    """The part of ``images.ImageConfig`` that counts here."""

    @property
    def entrypoint(self) -> Sequence[str] | None: ...
    @property
    def cmd(self) -> Sequence[str] | None: ...
    @property
    def env(self) -> Sequence[str] | None: ...
    @property
    def workdir(self) -> str | None: ...
    @property
    def user(self) -> str | None: ...


class Isolation(Struct, frozen=True, kw_only=True):
    """What this node gives every container, as it was found by trying: the ``engine``'s name, ``ids`` of a
    user namespace (None: it has none), and how seccomp is given (None: not at all)."""

    engine: str = "crun"
    ids: Ids | None = None
    seccomp: Seccomp | None = None
    policy: Policy = Policy()
    owner: tuple[int, int] = (0, 0)
    """uid and gid of the submitting user, who gets what is in TOW_OUT at the end."""
    rootless: int = 0
    """Where it is run by an ordinary user: how many subordinate ids he has; see ``rootless``."""


class OciData(Struct, frozen=True, kw_only=True):
    """``Plan.runtime_data`` of the oci runtime: all elements of a task on one node share it."""

    rootfs: str
    workdir: str
    network: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    mounts: tuple[BindMount, ...]
    engine: str = "crun"
    ids: Ids | None = None
    seccomp: Seccomp | None = None
    capabilities: tuple[str, ...] = ()
    privileged: bool = False
    owner: tuple[int, int] = (0, 0)
    disk: str | None = None
    """An empty file system to write to, a file; None: what it writes is only watched."""
    rootless: int = 0
    """As in Isolation."""

    @property
    def has_userns(self) -> bool:
        return self.ids is not None or self.rootless > 0

    @property
    def outside(self) -> tuple[int, int]:
        """The uid and gid of the command's user as this node sees them."""
        if self.ids is None:
            return self.uid, self.gid
        return self.ids.outside(self.uid), self.ids.outside(self.gid)

    @property
    def leaves_others(self) -> bool:
        """Whether files in TOW_OUT may belong to somebody else than the submitting user at the end."""
        if not self.has_userns:
            return (self.uid, self.gid) != self.owner or self.privileged
        return bool(self.capabilities or self.groups)

    @property
    def writer(self) -> tuple[int, int]:
        """Who has to own TOW_OUT on the disk, so that the command's user can write there."""
        if self.rootless:
            return self.owner
        if self.ids is None:
            return self.uid, self.gid
        return self.ids.owner_uid, self.ids.owner_gid


def runtime_data(
    task: TaskSpec,
    rootfs: str,
    image: ImageConfig,
    allowed_roots: Sequence[str],
    isolation: Isolation,
    disk: str | None = None,
) -> dict[str, Any]:
    """What the supervisor needs of a task beyond its Plan. Sources of mounts are absolute already.

    Raises StartFailed for what the node's policy or the image does not allow, a user that the image does
    not know, and for mounts that are refused.
    """
    for refusal in refusals(task, isolation.policy):
        raise StartFailed(f"{refusal}.")
    if task.privileged and isolation.rootless:
        raise StartFailed(
            "privileged: an ordinary user has not the rights of this machine to give away: start tow as root "
            "(sudo), or ask for the single capabilities that it needs."
        )
    ids = None if task.privileged else isolation.ids
    count = isolation.rootless + 1 if isolation.rootless else None if ids is None else ids.count
    user = _user(task, rootfs, image, count)
    data = OciData(
        rootfs=rootfs,
        workdir=task.workdir or image.workdir or "/",
        network=task.network,
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        home=user.home or ("/root" if user.uid == 0 else "/"),
        mounts=tuple(
            BindMount(resolve_mount(mount.source, allowed_roots), mount.target, mount.readonly)
            for mount in task.mounts
        ),
        engine=isolation.engine,
        ids=ids,
        seccomp=None if task.privileged else isolation.seccomp,
        capabilities=task.capabilities,
        privileged=task.privileged,
        owner=isolation.owner,
        disk=disk,
        rootless=isolation.rootless,
    )
    return msgspec.to_builtins(data)


def _user(task: TaskSpec, rootfs: str, image: ImageConfig, count: int | None) -> User:
    user = find_user(task.user, rootfs, "user") if task.user else find_user(image.user, rootfs)
    highest = max(user.uid, user.gid, *user.groups)
    if count is not None and highest >= count:
        raise StartFailed(
            f"The container's user or group {highest} is beyond the {count} ids of its user namespace: "
            f"use a lower one (user: 1000), or have the node's operator turn user namespaces off "
            f"(TOWLINE_OCI_USERNS=false)."
        )
    return user


def final_argv_env(
    command: Sequence[str] | None,
    args: Sequence[str] | None,
    env: Mapping[str, str],
    tow: Mapping[str, str],
    image: ImageConfig,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What one element runs, and its environment: ``command`` replaces the image's entrypoint and
    arguments, ``args`` the arguments only; the task's ``env`` goes over the image's, TOW_* over both.

    Raises StartFailed where neither names a command.
    """
    if command is not None:
        argv = (*command, *(args or ()))
    else:
        argv = (*(image.entrypoint or ()), *(args if args is not None else image.cmd or ()))
    if not argv:
        raise StartFailed("There is nothing to run: the image has no command of its own, so set command.")
    merged = {"PATH": _DEFAULT_PATH}
    for entry in image.env or ():
        name, equals, value = entry.partition("=")
        if equals:
            merged[name] = value
    return argv, {**merged, **env, **tow, "TOW_OUT": OUT_TARGET}


def read_data(plan: Plan) -> OciData:
    """Raises StartFailed where the plan was not made for this runtime."""
    try:
        return msgspec.convert(plan.runtime_data, OciData)
    except msgspec.ValidationError as error:
        raise StartFailed(f"The plan of this attempt cannot be used by this build: {error}.") from None
