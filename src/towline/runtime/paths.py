"""Paths that come from users and images, opened so that a symlink cannot lead anywhere else."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Sequence

from towline.runtime.port import StartFailed

_libc = ctypes.CDLL(None, use_errno=True)
_OPENAT2 = 437  # the same number on every architecture, as of all system calls since Linux 5.1
_NO_MAGICLINKS = 0x02
_NO_SYMLINKS = 0x04
_IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class MountRefused(StartFailed):
    """``what`` is wrong with the source, in words that follow it, and the ``remedy``."""

    def __init__(self, message: str, what: str, remedy: str, *, missing: bool) -> None:
        super().__init__(message)
        self.what = what
        self.remedy = remedy
        self.missing = missing


def resolve_mount(source: str, allowed_roots: Sequence[str]) -> str:
    """The real path of a mount's absolute source, which lies in one of the allowed folders.

    Raises MountRefused where it does not exist, or where it is or leads outside of them.
    """
    try:
        real = os.path.realpath(source, strict=True)
    except OSError as error:
        what = _missing(source, error)
        remedy = "Create it on this node, or correct mounts.source."
        text = f"The mount of {source} cannot be made: {what}. {remedy}"
        raise MountRefused(text, f"cannot be mounted: {what}", remedy, missing=True) from None
    roots = [os.path.realpath(root) for root in allowed_roots]
    if any(_beneath(real, root) for root in roots):
        return real
    leads = "" if real == os.path.normpath(source) else f" (it leads to {real})"
    why = "this node allows no mounts"
    if roots:
        why = f"it is outside of the allowed folders {', '.join(roots)}"
    remedy = "Put the data there, or have the node's configuration allow the folder."
    text = f"The mount of {source}{leads} is refused: {why}. {remedy}"
    raise MountRefused(text, f"cannot be mounted{leads}: {why}", remedy, missing=False)


def open_unchanged(path: str) -> int:
    """A descriptor (O_PATH) of a path resolved earlier that still has no symlink in it.

    Raises OSError (ELOOP: it has one now).
    """
    return _openat2(-100, path, os.O_PATH | os.O_CLOEXEC, _NO_SYMLINKS)


def open_inside(root: int, path: str) -> int:
    """A descriptor (O_PATH) of a path as the container with this root sees it: its symlinks stay inside,
    and the last one is followed too. Raises OSError."""
    return _openat2(root, path, os.O_PATH | os.O_CLOEXEC, _IN_ROOT | _NO_MAGICLINKS)


def is_folder_in_root(root: str, path: str) -> bool:
    """Whether a path is a folder as the container with this root sees it."""
    try:
        top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = open_inside(top, path)
    except OSError:
        return False
    finally:
        os.close(top)
    try:
        return stat.S_ISDIR(os.fstat(found).st_mode)
    finally:
        os.close(found)


def read_in_root(root: str, path: str, limit_bytes: int) -> bytes | None:
    """Read a file of an image as the container would see it: its symlinks stay inside of ``root``.

    None where there is no such regular file, or where it is larger than the limit.
    """
    try:
        top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        handle = _openat2(top, path, flags, _IN_ROOT | _NO_MAGICLINKS)
    except OSError:
        return None
    finally:
        os.close(top)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    with os.fdopen(handle, "rb") as file:
        content = file.read(limit_bytes + 1)
    return None if len(content) > limit_bytes else content


def _openat2(folder: int, path: str, flags: int, resolve: int) -> int:
    how = _OpenHow(flags, 0, resolve)
    handle = _libc.syscall(_OPENAT2, folder, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if handle < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return handle


def _beneath(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _missing(source: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"there is no {error.filename or source} on this node"
    return f"{error.filename or source} cannot be read ({error.strerror})"
