"""Mounts by the kernel's newer calls (Linux 5.12): a tree of mounts is copied, changed, and then attached.

Nothing is ever looked up by a path that somebody else could change meanwhile: all are descriptors.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_libc = ctypes.CDLL(None, use_errno=True)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442  # the same on every architecture
_CLONE, _CLOEXEC = 0x1, 0x80000
_EMPTY_PATH, _RECURSIVE = 0x1000, 0x8000
_FROM_EMPTY_PATH, _TO_EMPTY_PATH = 0x04, 0x40
_PRIVATE = 1 << 18
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_CLONE_NEWUSER = 0x10000000

READ_ONLY, NO_SUID, NO_DEVICES, NO_EXECUTION = 0x1, 0x2, 0x4, 0x8
_ID_MAPPED = 0x00100000


@contextmanager
def held(descriptor: int) -> Iterator[int]:
    """Closed when it is left."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def copy_tree(folder: int, *, recursive: bool) -> int:
    """A copy of what is mounted at this descriptor's place, attached nowhere. Raises OSError."""
    flags = _CLONE | _CLOEXEC | _EMPTY_PATH | (_RECURSIVE if recursive else 0)
    return _call(_OPEN_TREE, folder, b"", flags)


def change_tree(tree: int, flags: int, ids: int | None = None) -> None:
    """Set flags of every mount in an unattached tree, and make them private; show owners by the user
    namespace ``ids``, a descriptor. Raises OSError (EINVAL: a file system that cannot)."""
    given = flags | (_ID_MAPPED if ids is not None else 0)
    attributes = ctypes.create_string_buffer(struct.pack("=QQQQ", given, 0, _PRIVATE, ids or 0), 32)
    _call(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH | _RECURSIVE, attributes, 32)


def attach_tree(tree: int, target: int) -> None:
    """Mount an unattached tree over the folder or file of a descriptor. Raises OSError."""
    _call(_MOVE_MOUNT, tree, b"", target, b"", _FROM_EMPTY_PATH | _TO_EMPTY_PATH)


def detach(path: str) -> bool:
    """Take away the uppermost mount at a path and all that is mounted in it, at once for new openers.
    False where nothing is mounted, or nothing is. Raises OSError."""
    if _libc.umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        return True
    number = ctypes.get_errno()
    if number in (22, 2):  # EINVAL, ENOENT
        return False
    raise OSError(number, os.strerror(number), path)


def user_namespace(uids: str, gids: str) -> int:
    """A descriptor of a new user namespace with these lines of uid_map and gid_map. Raises OSError.

    For root, and a process with one thread only.
    """

    def map_ids(child: int) -> None:
        for name, lines in (("uid_map", uids), ("gid_map", gids)):
            _write(f"/proc/{child}/{name}", lines)

    return namespace_mapped_by(map_ids)


def namespace_mapped_by(map_ids: Callable[[int], None]) -> int:
    """A descriptor of a new user namespace; ``map_ids`` is given the pid of a process in it, to map its ids.
    Raises OSError, and what ``map_ids`` raises.

    A child makes it and ends; the descriptor keeps it. For a process with one thread only.
    """
    ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
    end_r, end_w = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        _make_namespace(ready_w, end_r, (ready_r, end_w))
    os.close(ready_w)
    os.close(end_r)
    try:
        failed = os.read(ready_r, 4)
        if len(failed) != 1:
            number = int.from_bytes(failed, "little") or 1
            raise OSError(number, os.strerror(number), "a user namespace")
        map_ids(child)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_r)
        os.close(end_w)
        os.waitpid(child, 0)


def _make_namespace(ready: int, end: int, others: tuple[int, int]) -> None:
    """In the child: never returns."""
    try:
        for other in others:  # else the end of the parent would go unseen
            os.close(other)
        if _libc.unshare(_CLONE_NEWUSER) == 0:
            os.write(ready, b"1")
            os.read(end, 1)
        else:
            os.write(ready, ctypes.get_errno().to_bytes(4, "little"))
    finally:
        os._exit(0)


def _write(path: str, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)


def _call(number: int, *arguments: object) -> int:
    result = _libc.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
