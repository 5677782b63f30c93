"""The files of segments: in a folder while they are written, in the object store once they are full.

    FOLDER/0000000001.seg           being written, or on its way
    output/0000000001.seg           its key in the object store

A segment that cannot be moved now stays in the folder, is read there, and is tried again. All of it blocks
and may be called from any thread; OSError is raised where a file or the object store fails.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import structlog

from towline.errors import StoreError
from towline.logs.objects import Objects

SUFFIX = ".seg"
PREFIX = "output/"
AGAIN_S = 30.0


class Segments:
    """``objects``: None to leave all in the folder."""

    def __init__(self, folder: Path, objects: Objects | None) -> None:
        self._folder = folder
        self._objects = objects
        self._full: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-segments", daemon=True)
        self._closing = False
        self._lock = threading.Lock()
        """Held while a segment moves or goes: it must not be moved after it was removed."""
        self._waiting: list[tuple[int, Callable[[], object]]] = []
        self._waiting_lock = threading.Lock()
        self._log = structlog.get_logger("server.logs")

    def open(self, full: list[int]) -> None:
        """``full`` are those in the folder that are to be moved."""
        for number in full:
            self._full.put(number)
        if self._objects is not None:
            self._thread.start()

    def close(self) -> None:
        """What has not been moved is moved by the next process."""
        if self._objects is not None:
            self._closing = True
            self._full.put(None)
            self._thread.join()

    def path(self, number: int) -> Path:
        return self._folder / f"{number:010}{SUFFIX}"

    def here(self) -> list[int]:
        """Those in the folder, the oldest first."""
        return sorted(int(path.stem) for path in self._folder.glob(f"*{SUFFIX}"))

    def away(self) -> list[int]:
        """Those in the object store, the oldest first."""
        if self._objects is None:
            return []
        with _as_os_error():
            names = [key.removeprefix(PREFIX).removesuffix(SUFFIX) for key in self._objects.sizes(PREFIX)]
        return sorted(int(name) for name in names if name.isdigit())

    def read(self, number: int, position: int = 0, length: int | None = None) -> bytes:
        """So much of a segment, the rest of it without ``length``."""
        try:
            with self.path(number).open("rb") as file:
                file.seek(position)
                return file.read(-1 if length is None else length)
        except FileNotFoundError:
            if self._objects is None:
                raise
        with _as_os_error():
            found = self._objects.get(_key(number), position, length)
        if found is None:
            raise FileNotFoundError(f"{_key(number)} is not in the object store any more")
        return found

    def fill(self, number: int) -> None:
        """A segment is full: it may be moved."""
        self._full.put(number)

    def when_moved(self, number: int, done: Callable[[], object]) -> None:
        """Call ``done`` once no segment up to this one is in the folder any more."""
        with self._waiting_lock:
            self._waiting.append((number, done))
        self._tell()

    def _tell(self) -> None:
        with self._waiting_lock:
            if not self._waiting:
                return
            first = min(self.here(), default=None)
            told = [done for number, done in self._waiting if first is None or first > number]
            self._waiting = [one for one in self._waiting if first is not None and first <= one[0]]
        for done in told:
            done()

    def remove(self, number: int) -> None:
        """It goes, wherever it is."""
        with self._lock:
            if self._objects is not None:
                with _as_os_error():
                    self._objects.delete(_key(number))
            self.path(number).unlink(missing_ok=True)

    # --- moving ---------------------------------------------------------------------------------------
    def _run(self) -> None:
        waiting: list[int] = []
        while True:
            with contextlib.suppress(queue.Empty):
                number = self._full.get(timeout=AGAIN_S if waiting else None)
                if number is not None:
                    waiting.append(number)
            waiting = [number for number in waiting if not self._closing and not self._has_moved(number)]
            self._tell()
            if self._closing:
                return

    def _has_moved(self, number: int) -> bool:
        assert self._objects is not None
        try:
            with self._lock:
                if self.path(number).exists():
                    self._objects.adopt(self.path(number), _key(number))
        except (StoreError, OSError) as error:
            self._log.warning("output stays on the server's disk for now", segment=number, error=str(error))
            return False
        return True


def _key(number: int) -> str:
    return f"{PREFIX}{number:010}{SUFFIX}"


@contextmanager
def _as_os_error() -> Generator[None, None, None]:
    try:
        yield
    except StoreError as error:
        raise OSError(str(error)) from error
