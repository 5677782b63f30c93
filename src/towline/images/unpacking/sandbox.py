"""What the unpacking process takes from itself before it reads anything: all writing outside of the
store (Landlock, where the kernel has it), memory without end, and a life longer than its parent's."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_WRITES = sum(1 << bit for bit in (1, 4, 5, 6, 7, 8, 9, 10, 11, 12))
"""Writing a file; removing and making folders, files and every other kind; of the first version."""
_NODES = 1 << 6 | 1 << 11
"""Making device nodes, which nobody may."""
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_MAX_MEMORY_BYTES = 2 * 1024**3


def enter(writable: Path, parent: int) -> bool:
    """Returns whether Landlock holds. ``parent``: who started this process, which ends with it."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("its parent is dead")
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0)
    return _restrict(writable)


def _restrict(writable: Path) -> bool:
    version = _libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if version < 2:  # the first one forbids links between folders, of which a root is made
        return False
    handled = _WRITES | _REFER | (_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("=Q", handled)
    rules = _libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        return False
    try:
        folder = os.open(writable, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", handled & ~_NODES, folder)
            if _libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0) != 0:
                return False
        finally:
            os.close(folder)
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return _libc.syscall(_RESTRICT_SELF, rules, 0) == 0
    finally:
        os.close(rules)
