"""Shows folders and files of the node inside a container's root, before the OCI runtime sees it.

We do it, not the runtime, because owners have to be mapped, because read-only has to cover mounts below
and single files, and because nothing may be swapped for a symlink between the look and the mount.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct

from towline.errors import NO_ROOM
from towline.runtime.linux.trees import (
    NO_DEVICES,
    NO_SUID,
    READ_ONLY,
    attach_tree,
    change_tree,
    copy_tree,
    held,
)
from towline.runtime.paths import open_inside, open_unchanged
from towline.runtime.port import StartFailed

_libc = ctypes.CDLL(None, use_errno=True)


class BindMount(Struct, frozen=True, array_like=True):
    """A real path of the node, shown at ``target``."""

    source: str
    target: str
    readonly: bool


class Owner(Struct, frozen=True, array_like=True):
    """Outside ids of who makes what is missing in a container's root: its own 0, and who it runs as."""

    root_uid: int
    root_gid: int
    uid: int
    gid: int


def show(root: str, bind: BindMount, ids: int | None, owner: Owner) -> None:
    """Mount it below ``root``; ``ids`` is a user namespace to show owners by. Raises StartFailed."""
    with held(_open_source(bind)) as source:
        try:
            tree = copy_tree(source, recursive=True)
        except OSError as error:
            raise StartFailed(f"{bind.source} cannot be mounted: {error.strerror}.") from error
        with held(tree):
            _change(bind, tree, NO_SUID | NO_DEVICES | (READ_ONLY if bind.readonly else 0), ids)
            is_folder = stat.S_ISDIR(os.fstat(source).st_mode)
            with held(_open_target(root, bind.target, is_folder, owner)) as target:
                try:
                    attach_tree(tree, target)
                except OSError as error:
                    raise StartFailed(
                        f"{bind.source} cannot be shown at {bind.target!r}: {error.strerror}. A folder "
                        f"needs a folder there, and a file a file."
                    ) from error


def show_system(
    root: str, source: str, target: str, owner: Owner, flags: int, *, with_all_in_it: bool = False
) -> None:
    """Mount a system folder of the node without what is mounted in it. Raises OSError, StartFailed."""
    flags_of_folder = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    with (
        held(os.open(source, flags_of_folder)) as folder,
        held(copy_tree(folder, recursive=with_all_in_it)) as tree,
        held(_open_target(root, target, True, owner)) as place,
    ):
        change_tree(tree, flags)
        attach_tree(tree, place)


def _open_source(bind: BindMount) -> int:
    """The agent resolved it; a symlink put there since would lead elsewhere."""
    try:
        return open_unchanged(bind.source)
    except OSError as error:
        raise StartFailed(
            f"{bind.source} cannot be mounted any more: {error.strerror}. It was changed since the attempt "
            f"was prepared; leave the folders of mounts and inputs in place while jobs use them."
        ) from None


def _change(bind: BindMount, tree: int, flags: int, ids: int | None) -> None:
    try:
        change_tree(tree, flags, ids)
    except OSError as error:
        if ids is None or error.errno not in (errno.EINVAL, errno.EPERM):
            raise StartFailed(f"{bind.source} cannot be mounted: {error.strerror}.") from error
        raise StartFailed(
            f"{bind.source} cannot be shown to the user of a container: its file system, or one that is "
            f"mounted in it, cannot map owners. Put the data on another one (ext4, xfs, btrfs, tmpfs), or "
            f"have the node's operator turn user namespaces off (TOWLINE_OCI_USERNS=false)."
        ) from error


# --- the place to show it at ---------------------------------------------------------------------------


def _open_target(root: str, target: str, is_folder: bool, owner: Owner) -> int:
    """A descriptor of the target, made where it is missing. Raises StartFailed."""
    parts = [part for part in target.split("/") if part and part != "."]
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    here = top
    try:
        for number in range(len(parts) + 1):
            path = "/".join(parts[:number]) or "."
            last = number == len(parts)
            try:
                found = open_inside(top, path)
            except FileNotFoundError:
                _make(here, parts[number - 1], is_folder or not last, owner)
                found = open_inside(top, path)
            if here != top:
                os.close(here)
            here = found
    except OSError as error:
        if here != top:
            os.close(here)
        raise _not_made(target, error) from error
    finally:
        os.close(top)
    return here


def _make(folder: int, name: str, is_folder: bool, owner: Owner) -> None:
    """In a folder that shows owners by a mapping of its own only those of the container can write."""
    try:
        _make_one(folder, name, is_folder)
    except OSError as error:
        if error.errno != errno.EOVERFLOW:
            raise
        with _acting_as(owner.uid, owner.gid):
            _make_one(folder, name, is_folder)
        return
    os.chown(name, owner.root_uid, owner.root_gid, dir_fd=folder, follow_symlinks=False)


def _make_one(folder: int, name: str, is_folder: bool) -> None:
    if is_folder:
        os.mkdir(name, 0o755, dir_fd=folder)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=folder))


@contextmanager
def _acting_as(uid: int, gid: int) -> Iterator[None]:
    """On files only, and this thread only."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)
    try:
        yield
    finally:
        _libc.setfsuid(os.geteuid())
        _libc.setfsgid(os.getegid())


def _not_made(target: str, error: OSError) -> StartFailed:
    if error.errno in (errno.EROFS, errno.EACCES, errno.EOVERFLOW):
        return StartFailed(
            f"Nothing can be shown at {target!r}: it lies in a folder that is read-only or not the "
            f"container's, being an input or a mount, and that has no such folder. Make it there first, or "
            f"use a target outside of it."
        )
    if error.errno in NO_ROOM:
        return StartFailed(f"There is no space left on this node's disk to make {target!r}.", "disk_full")
    return StartFailed(f"Nothing can be shown at {target!r} in the image: {error.strerror}.")
