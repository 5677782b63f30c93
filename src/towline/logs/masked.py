"""Output of an attempt with secrets: as ``Writer`` keeps it, with their values masked.

The bytes cannot go from the pipe into the file by the kernel's hand. They go into a file in memory first,
in one step, and from there, masked, into the attempt's files. Masking gives the same for the same bytes
however they are cut, so a supervisor that takes the files in memory up masks them once more and writes
what is not in the attempt's files yet: nothing is lost, doubled or shown, whenever the one before died.

    FOLDER/patterns      what is masked, msgpack
    FOLDER/0.0, 0.1 …    STREAM.TURN: what was taken from the pipe; two files take turns
    FOLDER/state         of each stream: whose turn it is, and what had become of all before its first byte
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from towline.logs import masking, reader
from towline.logs.entries import STREAMS
from towline.logs.masking import Masker
from towline.logs.writer import Writer

_STATE = struct.Struct("<QQQ")
"""A stream's turn, the masker's ``covered``, and how many bytes it had given."""
_BLIND = 2
"""A turn: nothing is masked any more, and nothing kept."""
_TURN_BYTES = 64 << 10
_SWITCH_BYTES = 512 << 10
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


class _Stream:
    """``given`` counts what the masker has given so far; ``tail_done`` what of its last words is in the
    attempt's file already."""

    __slots__ = ("end", "file", "given", "masker", "over", "tail_done", "turn")

    def __init__(self, masker: Masker) -> None:
        self.masker = masker
        self.turn = 0
        self.file = -1
        self.end = 0
        self.given = 0
        self.tail_done = 0
        self.over = False


class MaskedWriter(Writer):
    """``folder``: on a file system in memory, which only we can enter; it is made here, and removed by
    whoever removes the secrets. ``values`` is asked where no earlier one has left there what to mask; with
    None all output is dropped then. Raises OSError, and what ``values`` does."""

    def __init__(
        self,
        directory: str,
        max_bytes: int,
        folder: str,
        values: Callable[[], Iterable[bytes]] | None,
        resume: bool = False,
    ) -> None:
        super().__init__(directory, max_bytes, resume)
        self._folder = folder
        self._blind = False
        path = Path(folder, "patterns")
        masked_before = path.exists()
        found: tuple[bytes, ...] = ()
        if masked_before:  # the same as then, whatever this build would look for
            found = msgspec.msgpack.decode(path.read_bytes(), type=tuple[bytes, ...])
        elif values is not None:
            found = masking.patterns(values())
            self._make(path, found)
        else:
            self._close_eyes("its secrets are gone, so that they could not be masked")
        self._streams = [_Stream(Masker(found)) for _ in STREAMS]
        if resume and not self._blind:
            self._take_up(found, masked_before)

    def _make(self, path: Path, found: tuple[bytes, ...]) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        Path(self._folder, "state").write_bytes(bytes(_STATE.size * len(STREAMS)))
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.msgpack.encode(found))
        fresh.rename(path)

    def _take_up(self, found: tuple[bytes, ...], masked_before: bool) -> None:
        """Go on where the one before us died: its last bytes are masked again, and written if they are
        not yet."""
        state = Path(self._folder, "state").read_bytes()
        for stream, name in enumerate(STREAMS):
            mine = self._streams[stream]
            mine.turn, covered, mine.given = _STATE.unpack_from(state, _STATE.size * stream)
            if mine.turn == _BLIND:
                self._close_eyes("they could not be masked")
                return
            notes = [entry.offset for entry in reader.markers(self.directory) if entry.stream == stream]
            done = min(notes, default=reader.size(self.directory, name)) + self.dropped[stream]
            if not masked_before:
                mine.given = done
                self._save(stream, mine.turn, 0)
            path = Path(self._folder, f"{stream}.{mine.turn}")
            if path.exists():
                self._repeat(stream, Masker(found, covered), path, done - mine.given)

    def _repeat(self, stream: int, masker: Masker, path: Path, done: int) -> None:
        mine = self._streams[stream]
        taken = path.read_bytes()
        text = masker.feed(taken)
        mine.masker, mine.end = masker, len(taken)
        mine.given += len(text)
        mine.tail_done = max(0, done - len(text))
        self.write(stream, text[max(0, done) :], int(path.stat().st_mtime * 1000))

    # --- from the pipe ------------------------------------------------------------------------------
    def move(self, stream: int, pipe: int, limit: int, now_ms: int) -> int:
        """As Writer's. What is over ``max_bytes`` is masked all the same, and counted as it would have
        been kept."""
        if self._blind:
            return self._drop(stream, pipe, limit)
        mine = self._streams[stream]
        try:
            if mine.file < 0:
                mine.file = os.open(f"{self._folder}/{stream}.{mine.turn}", _FLAGS, 0o600)
            moved = os.splice(
                pipe, mine.file, min(limit, _TURN_BYTES), offset_dst=mine.end, flags=os.SPLICE_F_NONBLOCK
            )
        except BlockingIOError:
            return -1
        except OSError as error:
            self._close_eyes(f"there was no room in memory to mask them: {os.strerror(error.errno or 0)}")
            self._save(stream, _BLIND, 0)
            return self._drop(stream, pipe, limit)
        if moved > 0:
            mine.end += moved
            text = mine.masker.feed(os.pread(mine.file, moved, mine.end - moved))
            mine.given += len(text)
            if text:
                self.write(stream, text, now_ms)
            if mine.end >= _SWITCH_BYTES:
                self._switch(stream)
        return moved

    def _switch(self, stream: int) -> None:
        """Go on with an empty file; where there is no room to do so, with the one in use."""
        mine = self._streams[stream]
        turn, held = 1 - mine.turn, mine.masker.held
        try:
            file = os.open(f"{self._folder}/{stream}.{turn}", _FLAGS | os.O_TRUNC, 0o600)
        except OSError:
            return
        try:
            room = os.pwrite(file, held, 0) == len(held) and self._save(stream, turn, mine.masker.covered)
        except OSError:
            room = False
        if not room:
            os.close(file)
            return
        os.ftruncate(mine.file, 0)
        os.close(mine.file)
        mine.file, mine.turn, mine.end = file, turn, len(held)

    def _save(self, stream: int, turn: int, covered: int) -> bool:
        """In one write, into a file that has its room already: it is there whole, or not at all."""
        try:
            file = os.open(f"{self._folder}/state", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            os.pwrite(file, _STATE.pack(turn, covered, self._streams[stream].given), _STATE.size * stream)
        finally:
            os.close(file)
        return True

    def _close_eyes(self, why: str) -> None:
        """Nothing can be masked any more: nothing is kept from here on."""
        self._blind = True
        self._error = why

    # --- the end ------------------------------------------------------------------------------------
    def _say_last(self, stream: int, now_ms: int) -> None:
        mine = self._streams[stream]
        if not mine.over:
            mine.over = True
            self.write(stream, mine.masker.finish()[mine.tail_done :], now_ms)

    def remark(self, stream: int, text: str, now_ms: int) -> None:
        self._say_last(stream, now_ms)  # nothing follows
        super().remark(stream, text, now_ms)

    def finish(self, now_ms: int) -> None:
        for stream in range(len(STREAMS)):
            self._say_last(stream, now_ms)
        super().finish(now_ms)

    def close(self) -> None:
        super().close()
        for mine in self._streams:
            if mine.file >= 0:
                os.close(mine.file)
                mine.file = -1
