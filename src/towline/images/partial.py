"""Folders for what is half done. Each is held by a file lock that our child processes inherit: whoever
finds one that nobody holds knows that its makers are dead, and removes it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple


class Work(NamedTuple):
    """A folder of our own, and the descriptor that locks it."""

    folder: Path
    lock: int

    def arrived_bytes(self) -> int:
        """What lies in it by now."""
        total = 0
        for folder, _, files in os.walk(self.folder):
            for name in files:
                with suppress(OSError):
                    total += os.stat(os.path.join(folder, name)).st_size  # noqa: PTH116, PTH118 - texts, and there are many
        return total


@asynccontextmanager
async def working(partial: Path) -> AsyncIterator[Work]:
    """A new folder, which is removed at the end with all that is left in it. Raises OSError."""
    work = await asyncio.to_thread(_claim, partial)
    try:
        yield work
    finally:
        os.close(work.lock)
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, work.folder, ignore_errors=True))


def _claim(partial: Path) -> Work:
    while True:
        folder = Path(tempfile.mkdtemp(dir=partial))
        with suppress(FileNotFoundError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return Work(folder, lock)
            os.close(lock)  # a sweep of another process came between


def sweep(partial: Path) -> None:
    """Remove what the dead have left."""
    for folder in partial.iterdir():
        with suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                pass
            finally:
                os.close(handle)


def discard(partial: Path, path: Path) -> Path | None:
    """Take something out of its place in one step; what is returned is to be removed at leisure."""
    trash = Path(tempfile.mkdtemp(prefix="trash-", dir=partial))
    try:
        path.rename(trash / "it")
    except FileNotFoundError:
        trash.rmdir()
        return None
    return trash
