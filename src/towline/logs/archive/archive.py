"""Keeps what nodes ship: appended to a segment of many attempts, synced in groups, then acknowledged.

segments     frames; the last one is open, the others are sealed (``segments.py`` says where they are)
FOLDER/index where whose pieces are; made again from the segments where it is gone

Several servers may share an object store: then each has a folder of its own, numbers of segments are
never another one's too, and ``catch_up`` finds what others have sealed. What stands in an open segment is out
of their reach: ``when_away`` tells when all that was durable has become theirs too.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from towline.logs.archive import frames
from towline.logs.archive.frames import Frame, Time
from towline.logs.archive.index import Extent, Index, Piece
from towline.logs.archive.segments import Segments
from towline.logs.objects import Objects

SEGMENT_BYTES = 16 * 1024**2
SEAL_S = 15.0
_GROUP_BYTES = 8 * 1024**2
_KNOWN_ATTEMPTS = 20_000
_READ_PIECES = 64
_CHANCE_BITS = 20
_READ_BYTES = 1024**2

Done = Callable[[Exception | None], object]
"""Told in the writer's thread when it is durable, or why it is not: an OSError, or a ValueError for what
does not follow on what is there."""


class Stored(NamedTuple):
    """Bytes from ``offset`` on, which is not the one that was asked for where what was there is removed.
    ``times`` as in logs.Chunk's index."""

    offset: int
    data: bytes
    times: tuple[tuple[int, int], ...]


class _Append(NamedTuple):
    frame: Frame
    done: Done


class _Hold(NamedTuple):
    done: Callable[[], object]


class _Forget(NamedTuple):
    """The index knows more than it did."""


class _Ask(NamedTuple):
    attempt: str
    answer: Callable[[Extent | Exception], object]


_Work = _Append | _Ask | _Hold | _Forget


class Archive:
    """One process has it. ``append`` and ``ask`` return at once; what reads, blocks, in any thread."""

    def __init__(
        self,
        folder: Path,
        segment_bytes: int = SEGMENT_BYTES,
        objects: Objects | None = None,
        *,
        shared: bool = False,
        seal_s: float = SEAL_S,
    ) -> None:
        """``objects``: where sealed segments go. None: they stay in the folder. ``shared``: other servers
        have segments there too; one that somebody waits for is sealed after ``seal_s``."""
        self._shared = shared
        self._seal_s = seal_s
        self._seal_at_s: float | None = None
        self._folder = folder
        self._index_path = folder / "index"
        self._segments = Segments(folder, objects)
        self._segment_bytes = segment_bytes
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-archive", daemon=True)
        self._extents: dict[str, Extent] = {}
        self._file = -1
        self._ended: dict[int, int] = {}
        """Segments that are written to their end, with that, and are not noted as sealed yet."""
        self._number = 0
        self._end = 0

    # --- life -------------------------------------------------------------------------------------
    def open(self) -> None:
        """Read what a crash has left unsealed, and take up work. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index, is_new = self._open_index()
        sealed = self._index.sealed()
        here = self._segments.here()
        for number in here:
            if number not in sealed:
                self._recover(number)
        self._number = max((0, *here, *sealed))
        missing = set(sealed) - set(here)
        if missing or is_new:
            self._look_away(missing, is_new)
        self._segments.open(sorted(set(self._index.sealed()) & set(here)))
        self._thread.start()

    def _look_away(self, missing: set[int], is_new: bool) -> None:
        """Sealed segments that are not in the folder are in the object store. Those that are there and that a
        new index does not know are read again. Raises OSError."""
        try:
            away = self._segments.away()
        except OSError as error:
            if is_new:
                raise
            # They are taken to be there: who reads one that is not will be told.
            structlog.get_logger("server.logs").warning(
                "older output cannot be looked for", segments=len(missing), error=str(error)
            )
            return
        self._number = max((self._number, *away))
        known = self._index.sealed()
        for number in away:
            if number not in known:
                self._recover(number)
        for number in missing.difference(away):
            self._index.drop_segment(number)

    def catch_up(self) -> None:
        """Index what other servers have sealed since the last time, and forget what they have removed.
        Blocks, for as long as it takes to read that. Raises OSError."""
        sealed = self._index.sealed()
        here = self._segments.here()
        away = self._segments.away()
        unknown = [number for number in away if number not in sealed]
        for number in unknown:
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                self._recover(number)
        for number in set(sealed) - {*here, *away}:
            self._index.drop_segment(number)
        if unknown:
            self._work.put(_Forget())

    def close(self) -> None:
        """Finish what was handed over."""
        self._work.put(None)
        self._thread.join()
        if self._file >= 0:
            os.close(self._file)
        self._segments.close()
        self._index.close()

    def _open_index(self) -> tuple[Index, bool]:
        """And whether it knows nothing of what there was."""
        is_new = not self._index_path.exists()
        try:
            return Index(self._index_path), is_new
        except sqlite3.DatabaseError:  # damaged: what it knew stands in the segments
            for file in self._folder.glob("index*"):
                file.unlink()
            return Index(self._index_path), True

    def _recover(self, number: int) -> None:
        """Find every whole frame of a segment, cut off what was being written, and seal it."""
        end, pieces = 0, list[Piece]()
        data = self._segments.read(number)
        for position, length, frame in frames.scan(data):
            end = position + length
            pieces.append(_piece(frame, number, position, length))
            if len(pieces) >= 10_000:
                self._index.add(pieces)
                pieces.clear()
        self._index.add(pieces)
        if end == 0:
            if not data or self._segments.path(number).exists():  # another server's object is left as it is
                self._segments.remove(number)
            return
        if end < len(data):
            with contextlib.suppress(FileNotFoundError):  # an object is left as it is
                os.truncate(self._segments.path(number), end)
        self._index.seal(number, end)

    # --- writing ----------------------------------------------------------------------------------
    def append(self, frame: Frame, done: Done) -> None:
        self._work.put(_Append(frame, done))

    def ask(self, attempt: str, answer: Callable[[Extent | Exception], object]) -> None:
        """How much of an attempt is durable, once everything that was handed over before is."""
        self._work.put(_Ask(attempt, answer))

    def when_away(self, done: Callable[[], object]) -> None:
        """Call ``done``, in some thread, once all that was handed over before is in the object store."""
        self._work.put(_Hold(done))

    def _next_work(self) -> _Work | None:
        """Seals meanwhile what somebody waits for."""
        while True:
            left_s = None if self._seal_at_s is None else max(0.0, self._seal_at_s - time.monotonic())
            try:
                return self._work.get(timeout=left_s)
            except queue.Empty:
                self._seal_at_s = None
                self._seal_or_later()

    def _hold(self, held: _Hold) -> None:
        if self._file >= 0 and self._seal_at_s is None:
            self._seal_at_s = time.monotonic() + self._seal_s
        self._segments.when_moved(self._number, held.done)

    def _run(self) -> None:
        while True:
            group: list[_Work | None] = [self._next_work()]
            size = 0
            while size < _GROUP_BYTES and group[-1] is not None:
                if isinstance(group[-1], _Append):
                    size += len(group[-1].frame.data)
                try:
                    group.append(self._work.get_nowait())
                except queue.Empty:
                    break
            if any(isinstance(work, _Forget) for work in group):
                self._extents.clear()
            self._handle([work for work in group if isinstance(work, _Append)])
            for work in group:
                if isinstance(work, _Ask):
                    self._answer(work)
                elif isinstance(work, _Hold):
                    self._hold(work)
            if group[-1] is None:
                return

    def _answer(self, asked: _Ask) -> None:
        try:
            asked.answer(self._extent(asked.attempt))
        except OSError as error:
            asked.answer(error)

    def _handle(self, appends: Sequence[_Append]) -> None:
        if not appends:
            return
        told: list[tuple[Done, Exception | None]] = []
        try:
            self._write(appends, told)
        except OSError as error:
            self._extents.clear()
            self._give_up()
            told = [(append.done, error) for append in appends]
        if len(self._extents) > _KNOWN_ATTEMPTS:
            self._extents.clear()
        for done, error in told:
            done(error)

    def _write(self, appends: Sequence[_Append], told: list[tuple[Done, Exception | None]]) -> None:
        packed: list[bytes] = []
        pieces: list[Piece] = []
        self._open_segment()
        position = self._end
        for frame, done in appends:
            extent = self._extent(frame.attempt)
            follows = frame.offset == extent.sizes[frame.stream] and not extent.ended[frame.stream]
            told.append((done, None if follows else ValueError("it does not follow on what is there")))
            if not follows:
                continue
            data = frames.pack(frame)
            packed.append(data)
            pieces.append(_piece(frame, self._number, position, len(data)))
            position += len(data)
            self._extents[frame.attempt] = extent.longer(frame.stream, len(frame.data), frame.end)
        _write_all(self._file, packed)
        os.fdatasync(self._file)
        self._index.add(pieces)
        self._end = position
        if self._end >= self._segment_bytes:
            self._seal_or_later()  # what was appended is durable, whatever becomes of that

    def _extent(self, attempt: str) -> Extent:
        found = self._extents.get(attempt)
        if found is None:
            found = self._extents[attempt] = self._index.extent(attempt)
        return found

    def _open_segment(self) -> None:
        if self._file >= 0:
            return
        number = self._number + 1
        if self._shared:
            number = max(number, _fresh_number())
        path = self._segments.path(number)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._number = number
        self._end = 0
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _seal_or_later(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._ended[self._number] = self._end
        try:
            for number, end in list(self._ended.items()):
                self._index.seal(number, end)
                del self._ended[number]
                self._segments.fill(number)
        except OSError as error:
            structlog.get_logger("server.logs").warning("not sealed", error=str(error))
            self._seal_at_s = time.monotonic() + self._seal_s

    def _give_up(self) -> None:
        """What a failed write has left is not relied upon: the segment ends where the last good one did."""
        if self._file < 0:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, self._end)
            self._seal_or_later()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # --- reading ----------------------------------------------------------------------------------
    def extent(self, attempt: str) -> Extent:
        """What is durable of it."""
        return self._index.extent(attempt)

    def read(self, attempt: str, stream: int, offset: int, limit: int) -> Stored:
        """Up to ``limit`` bytes from ``offset`` on, or from where the rest of them begins; empty where
        nothing follows. Raises OSError where a segment cannot be read."""
        start: int | None = None
        data = bytearray()
        index: list[tuple[int, int]] = []
        for frame in self._frames(self._index.pieces(attempt, stream, offset, _READ_PIECES)):
            if start is None:
                start = max(offset, frame.offset)
            if frame.offset > start + len(data) or len(data) >= limit:
                break  # a hole, which the next call begins behind
            skip = start + len(data) - frame.offset
            index += _times(frame.times, frame.offset + skip)
            data += frame.data[skip : skip + limit - len(data)]
        if start is None:
            return Stored(offset, b"", ())
        end = start + len(data)
        return Stored(start, bytes(data), tuple((at, ms) for at, ms in index if at < end))

    def last_at(self, attempt: str, stream: int) -> int | None:
        """When, in unix ms, the last bytes that are there were written; None where that is not known."""
        size = self.extent(attempt).sizes[stream]
        last = self._index.pieces(attempt, stream, max(0, size - 1), 1)
        times = next(self._frames(last)).times if last else ()
        return times[-1][1] if times else None

    def _frames(self, pieces: Sequence[Piece]) -> Iterator[Frame]:
        """In order. Those that lie near each other in a segment are read at once: each read of an object
        store takes its time, however little it is."""
        for near in _near(pieces):
            begin = near[0].position
            data = memoryview(
                self._segments.read(near[0].segment, begin, near[-1].position + near[-1].stored - begin)
            )
            for piece in near:
                frame = frames.unpack(data[piece.position - begin :][: piece.stored])
                if frame is None or (frame.attempt, frame.offset) != (piece.attempt, piece.offset):
                    raise OSError(
                        f"segment {piece.segment} of the output is damaged at byte {piece.position}"
                    )
                yield frame

    def was_removed(self, attempt: str) -> bool:
        """Whether something of it was removed to make room."""
        return self._index.was_removed(attempt)

    # --- what goes --------------------------------------------------------------------------------
    def sealed(self) -> dict[int, int]:
        """Sealed segments, the oldest first, with their bytes."""
        return self._index.sealed()

    def kept_bytes(self) -> int:
        """What all segments take."""
        return sum(self._index.sealed().values()) + (self._end if self._file >= 0 else 0)

    def attempts_in(self, segment: int) -> list[str]:
        return self._index.attempts_in(segment)

    def lost_with(self, jobs: Sequence[str]) -> list[int]:
        """Segments that hold nothing but output of these jobs: what ``drop_jobs`` would remove."""
        return self._index.lost_with(jobs)

    def drop_jobs(self, jobs: Sequence[str]) -> int:
        """Forget the output of these jobs, and remove the segments that held nothing else. Returns the bytes
        freed."""
        for job in jobs:
            self._index.drop_job(job)
        return sum(self.drop_segment(segment) for segment in self._index.without_pieces())

    def drop_segment(self, segment: int) -> int:
        """Remove a sealed segment with all that it holds. Returns the bytes freed."""
        size = self._index.sealed().get(segment, 0)
        self._segments.remove(segment)
        self._index.drop_segment(segment)
        return size


def _fresh_number() -> int:
    """One that no other server takes: the time in ms, which keeps the order, and chance."""
    return (time.time_ns() // 1_000_000 << _CHANCE_BITS) + secrets.randbits(_CHANCE_BITS)


def _piece(frame: Frame, segment: int, position: int, stored: int) -> Piece:
    length = len(frame.data)
    return Piece(frame.attempt, frame.stream, frame.offset, length, frame.end, segment, position, stored)


def _near(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces that follow each other in a segment, in groups that lie within ``_READ_BYTES``."""
    group: list[Piece] = []
    for piece in pieces:
        if group and (
            piece.segment != group[0].segment
            or piece.position < group[-1].position
            or piece.position + piece.stored - group[0].position > _READ_BYTES
        ):
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def _times(times: Sequence[Time], start: int) -> list[tuple[int, int]]:
    """The (offset, unix ms) pairs from ``start`` on, the first one for the byte there."""
    before = [ms for at, ms, _ in times if at <= start]
    inside = [(at, ms) for at, ms, _ in times if at > start]
    return [(start, before[-1]), *inside] if before else inside


def _write_all(file: int, parts: Sequence[bytes]) -> None:
    data = memoryview(b"".join(parts))
    while data:
        data = data[os.write(file, data) :]
