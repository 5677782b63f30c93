"""Commands that break the pool: which one was in hand, and which job it is about.

An exception names its command by itself. For a death that is no exception (the kernel's OOM
killer, a crash of native code) the id of the command in hand stands in a memory-mapped file while
it is applied: it survives the process, and costs no system call. Three deaths in a row on one
command make it poison.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import tempfile
from pathlib import Path

from towline.core.commands import (
    Cancel,
    Command,
    NodeUp,
    Quarantine,
    Report,
    Retry,
    SetPriority,
    Submit,
    attempt_key,
)

_ID_BYTES = 200
_LAYOUT = struct.Struct(f"<I{_ID_BYTES}s{_ID_BYTES}s")
_HELD = 4 + _ID_BYTES
_NOTHING = bytes(_ID_BYTES)
DEATHS = 3


def command_id(command: Command) -> str:
    """The same for the same command whenever it comes again."""
    match command:
        case Submit():
            return f"submit {command.job}"
        case Cancel():
            return f"cancel {command.job} {command.task} {command.index} {command.kill}"
        case Retry():
            return f"retry {command.job} {command.key} {command.failed_only} {command.named[:1]}"
        case Report():
            of = " ".join(f"{update.attempt}:{update.state}" for update in command.updates[:1])
            return f"report {command.node} {len(command.updates)} {of}"
        case NodeUp():
            return f"node_up {command.node.id}"
        case _:
            return type(command).__name__.lower()


def job_of(command: Command) -> str | None:
    """The job that a command is about; None where it is about none, or about several."""
    match command:
        case Submit() | Cancel() | Retry() | Quarantine() | SetPriority():
            return command.job
        case Report(updates=(update,)):
            try:
                return attempt_key(update.attempt)[0]
            except ValueError:
                return None
        case _:
            return None


class Broken(Exception):
    """Applying ``command`` (None: the pass) broke the pool; its memory is not to be trusted."""

    def __init__(self, command: Command | None, cause: str) -> None:
        self.command = command
        self.job = None if command is None else job_of(command)
        what = "the scheduling pass" if command is None else command_id(command)
        super().__init__(f"{what}: {cause}")


class InHand:
    """The file with the command in hand: (deaths, the command of the last death, the command in hand).

    Written through shared memory and never synced: it has to survive this process, not the machine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(descriptor, _LAYOUT.size)
            # Where the disk is full, it fails here, and not by SIGBUS later.
            os.posix_fallocate(descriptor, 0, _LAYOUT.size)
            self._inode = os.fstat(descriptor)
            self._map = mmap.mmap(descriptor, _LAYOUT.size)
        finally:
            os.close(descriptor)
        deaths, died, held = _LAYOUT.unpack(self._map[:])
        if held.strip(b"\0"):
            deaths, died = (deaths + 1, died) if held == died else (1, held)
        self._deaths: int = deaths
        self._died: bytes = died.rstrip(b"\0")
        self._map[:] = _LAYOUT.pack(deaths, died, b"")

    @property
    def after_death(self) -> bool:
        """The process before this one, or one before it, died over a command that has not gone well since."""
        return self._deaths > 0

    def is_poison(self, command: str) -> bool:
        return self._deaths >= DEATHS and self._cut(command) == self._died

    def hold(self, command: str) -> None:
        self._map[_HELD:] = self._cut(command).ljust(_ID_BYTES, b"\0")

    def drop(self) -> None:
        """Nothing is in hand any more."""
        self._map[_HELD:] = _NOTHING

    def went_well(self, command: str) -> None:
        """A command that somebody died over before has been applied, or set aside."""
        if self._deaths and self._cut(command) == self._died:
            self.reset()

    def reset(self) -> None:
        self._deaths, self._died = 0, b""
        self._map[:] = bytes(_LAYOUT.size)

    def close(self) -> None:
        """The process ends by itself: there is nothing to remember unless somebody died before."""
        self._map.close()
        with contextlib.suppress(FileNotFoundError):
            if not self._deaths and os.path.samestat(self.path.stat(), self._inode):
                self.path.unlink()

    @staticmethod
    def _cut(command: str) -> bytes:
        return command.encode(errors="replace")[:_ID_BYTES]


def in_hand_path(home: Path, pool: str = "") -> Path:
    """Under /run, which does not outlive the boot and is no disk; in ``home`` where /run is not ours. Empty
    ``pool``: the home's first one."""
    name = hashlib.blake2b(os.fsencode(home), digest_size=8).hexdigest() + (f"-{pool}" if pool else "")
    run = Path("/run/towline")
    try:
        run.mkdir(mode=0o700, exist_ok=True)
        if run.stat().st_uid == os.geteuid():
            with tempfile.TemporaryFile(dir=run):
                return run / f"in-hand-{name}"
    except OSError:
        pass
    return home / (f"in-hand-{pool}" if pool else "in-hand")
