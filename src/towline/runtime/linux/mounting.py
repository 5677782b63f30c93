"""mount(2), and a mount namespace whose mounts nobody else sees."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_SLAVE = 0x4000, 1 << 19


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """Mount a file system of a kind at ``target``; ``flags`` are MS_* of mount(2). Raises OSError."""
    given = os.fsencode(options) if options else None
    if _libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, given) != 0:
        raise _error(target)


def enter_private_mounts() -> None:
    """Enter a mount namespace of our own. What we mount in it is seen by nobody else, and goes with the last
    of us. Every mount is made a slave first: under a shared root it would else spread outside. For a
    process with one thread only. Raises OSError."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        raise _error("unshare(CLONE_NEWNS)")
    if _libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None) != 0:
        raise _error("mount --make-rslave /")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
