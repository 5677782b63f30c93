"""The trees of this node that are what the server has too: which attempt's, and how much of them stays.

A note beside the tree says so, for this boot of the machine: after another one, what was not synced may be
torn, and is fetched again.

    artifacts/JOB/TASK/INDEX/             the tree
    artifacts/JOB/TASK.attempts/INDEX.copy  its note
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path

import msgspec
from msgspec import Struct

from towline.agent.artifacts import Artifacts
from towline.core.agent.eviction import Copy, Pins, to_evict

NOTE, STAGED = ".copy", ".staged"
ROOM_LEFT = 0.8
"""Of what copies may take, once some had to go: not each one that comes is to drive out another."""


class _Note(Struct, frozen=True):
    number: int
    boot_id: str
    size_bytes: int


class Copies:
    """``most_bytes``: what all may take. May be used from several threads."""

    def __init__(self, root: Path, artifacts: Artifacts, boot_id: str, most_bytes: int) -> None:
        self._root = os.fspath(root)
        self._artifacts = artifacts
        self._boot_id = boot_id
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._total_bytes: int | None = None

    def _note(self, job: str, task: int, index: int) -> str:
        return f"{self._root}/{job}/{task}.attempts/{index}{NOTE}"

    def holds(self, job: str, task: int, index: int, number: int) -> bool:
        """Whether the tree is there, and is what this attempt wrote. It counts as used now."""
        path = self._note(job, task, index)
        note = _read(path)
        if note is None or (note.number, note.boot_id) != (number, self._boot_id):
            return False
        if self._artifacts.standing(job, task, index) != number:
            return False
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
        return True

    def note(self, job: str, task: int, index: int, number: int, size_bytes: int) -> None:
        """The tree that is there is the server's. Raises OSError."""
        note = _Note(number, self._boot_id, size_bytes)
        Path(self._note(job, task, index)).write_bytes(msgspec.json.encode(note))
        with self._lock:
            if self._total_bytes is not None:
                self._total_bytes += size_bytes

    def staging(self, job: str, task: int, index: int, number: int) -> str:
        """An empty folder for what is fetched. Raises OSError."""
        folder = f"{self._artifacts.begin_task(job, task)}/{index}.{number}{STAGED}"
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder, 0o755)
        return folder

    def drop_others(self, job: str, task: int, first: int, last: int, numbers: dict[int, int]) -> None:
        """Remove what is there of elements first to last that have no attempt in ``numbers``: they have
        written nothing that counts. Raises OSError."""
        folder = Path(self._root, job, str(task))
        if not folder.is_dir():
            return
        for name in os.listdir(folder):
            if not name.isdigit() or not first <= int(name) <= last or int(name) in numbers:
                continue
            if os.listdir(folder / name):
                self._drop(job, task, int(name))
                self._artifacts.element(job, task, int(name))

    def make_room(self, extra_bytes: int, pins: Pins, most_bytes: int | None = None) -> int:
        """Remove copies until so much more fits; returns the bytes freed. ``most_bytes``: in place of what
        they may take."""
        most_bytes = self._most_bytes if most_bytes is None else most_bytes
        with self._lock:
            if self._total_bytes is None:
                self._total_bytes = sum(copy.size_bytes for copy in self._all())
            if self._total_bytes + extra_bytes <= most_bytes:
                return 0
            copies = self._all()
            freed = 0
            for copy in to_evict(copies, pins, int(ROOM_LEFT * most_bytes) - extra_bytes):
                self._drop(copy.job, copy.task, copy.index)
                freed += copy.size_bytes
            self._total_bytes = sum(copy.size_bytes for copy in copies) - freed
            return freed

    def sweep(self) -> None:
        """Remove what an agent had not fetched whole when it died."""
        for folder in Path(self._root).glob(f"*/*.attempts/*{STAGED}"):
            shutil.rmtree(folder, ignore_errors=True)

    def _drop(self, job: str, task: int, index: int) -> None:
        """First the note: without it the tree is nobody's copy."""
        Path(self._note(job, task, index)).unlink(missing_ok=True)
        gone = f"{self._root}/{job}/{task}.attempts/{index}.gone{STAGED}"
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{self._root}/{job}/{task}/{index}", gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _all(self) -> list[Copy]:
        found: list[Copy] = []
        for path in Path(self._root).glob(f"*/*.attempts/*{NOTE}"):
            note = _read(os.fspath(path))
            if note is None:
                continue
            with contextlib.suppress(FileNotFoundError, ValueError):
                found.append(
                    Copy(
                        job=path.parent.parent.name,
                        task=int(path.parent.name.removesuffix(".attempts")),
                        index=int(path.name.removesuffix(NOTE)),
                        size_bytes=note.size_bytes,
                        used_ns=path.stat().st_mtime_ns,
                    )
                )
        return found


def _read(path: str) -> _Note | None:
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=_Note)
    except (OSError, msgspec.DecodeError):
        return None
