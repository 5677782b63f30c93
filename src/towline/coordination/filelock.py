"""The lease beside a SQLite database: a file lock, held for life.

There is nothing to renew and no clock to trust: the kernel frees the lock when the process dies,
however it dies. The descriptor is closed on exec, so no child keeps the lock; whoever forks
without exec must not hold one. The lock is ``flock``, which other descriptors of the same
process and readers of the file do not disturb.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
from pathlib import Path

import msgspec
from msgspec import Struct

from towline.coordination.port import Holder
from towline.errors import OperatorError

_RETRY_S = 0.05


class _Note(Struct, kw_only=True):
    """What the holder writes into the file. ``started`` tells a process from a later one of the same
    pid: clock ticks since boot, from /proc (None where there is none)."""

    id: str
    pid: int
    started: int | None


class FileLease:
    """The lock of the file at ``path``, which is made with mode 0600. Methods raise OperatorError where the
    file cannot be used (no rights, no space)."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.id = secrets.token_hex(8)
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        return self._descriptor is not None

    async def acquire(self) -> None:
        """Wait until the lock is ours. May be cancelled; then it is not held."""
        while not self.try_acquire():  # noqa: ASYNC110 - the other process sets no event of ours
            await asyncio.sleep(_RETRY_S)

    def try_acquire(self) -> bool:
        """True if the lock is ours now (also if it was before); never waits."""
        while self._descriptor is None:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    return False
                raise self._broken(error) from error
            if not self._is_current(descriptor):
                os.close(
                    descriptor
                )  # somebody removed the file meanwhile: lock the one that stands there now
                continue
            self._descriptor = descriptor
            self._write_note(descriptor)
        return True

    def release(self) -> None:
        """Give it up; nothing happens where it is not held."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.ftruncate(descriptor, 0)
            os.close(descriptor)

    def holder(self) -> Holder | None:
        """Who has it, as far as is written down. Takes nothing away from whoever tries to acquire it."""
        try:
            note = msgspec.json.decode(self.path.read_bytes(), type=_Note)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        except OSError as error:
            raise self._broken(error) from error
        return Holder(id=note.id, pid=note.pid, alive=_is_alive(note))

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._broken(error) from error

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.path.stat())
        except FileNotFoundError:
            return False

    def _write_note(self, descriptor: int) -> None:
        note = _Note(id=self.id, pid=os.getpid(), started=_started(os.getpid()))
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(note), 0)
        except OSError as error:
            self.release()
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> OperatorError:
        return OperatorError(f"{self.path}: the lock file cannot be used: {error.strerror}")


def _is_alive(note: _Note) -> bool | None:
    if note.started is not None:
        return _started(note.pid) == note.started
    try:
        os.kill(note.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return None
    return None


def _started(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None where /proc has no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])
