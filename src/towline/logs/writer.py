"""Moves an attempt's output from its pipes into files, up to a limit, by the kernel's own hand.

``splice`` takes bytes out of the pipe and puts them into the file in one step, so a supervisor that
is killed at any moment has neither lost a byte nor written one twice: the file's length says where
to go on. Files are made when the first byte arrives; most attempts of a large array print nothing.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from towline.errors import NO_ROOM
from towline.logs import entries
from towline.logs.entries import DATA, ENTRY_BYTES, HEAD, INDEX, MAGIC, MARKER, STREAMS, Entry

_COALESCE_MS = 20
_COALESCE_BYTES = 256
_SINK = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_FULL = (*NO_ROOM, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def _as_far_as_there_is_room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise


class Writer:
    """The two output files of one attempt. Not safe to share; one supervisor has it.

    ``dropped`` counts what did not fit into ``max_bytes`` (both streams together), per stream.
    """

    def __init__(self, directory: str, max_bytes: int, resume: bool = False) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self.dropped = [0, 0]
        self._files = [-1, -1]
        self._sizes = [0, 0]
        self._index = -1
        self._index_end = HEAD.size
        self._last: list[Entry | None] = [None, None]
        self._last_stream = -1
        self._marked = False
        self._error: str | None = None
        self._untold = False
        self.stalled = False
        """The last ``move`` or ``finish`` found no room on the disk: it wants another one, and nothing of the
        pipe or of the counts is lost."""
        if resume:
            self._resume()

    def move(self, stream: int, pipe: int, limit: int, now_ms: int) -> int:
        """Move up to ``limit`` bytes that wait in ``pipe``. Returns how many; 0: none is left and
        nobody holds the other end; -1: none waits at the moment. Call it only if the pipe is readable
        or hung up: the files are made for what it is about to bring."""
        self.stalled = False
        if self.max_bytes <= self._sizes[0] + self._sizes[1] or self._error is not None:
            return self._drop(stream, pipe, limit)
        try:
            self._prepare(stream, now_ms)
            room = self.max_bytes - self._sizes[0] - self._sizes[1]
            moved = os.splice(
                pipe, self._files[stream], min(limit, room),
                offset_dst=self._sizes[stream], flags=os.SPLICE_F_NONBLOCK,
            )  # fmt: skip
        except BlockingIOError:
            return -1
        except OSError as error:
            if error.errno in NO_ROOM:
                self.stalled = True
                return -1
            if error.errno not in _FULL:
                raise
            self._error = os.strerror(error.errno or 0)
            return self._drop(stream, pipe, limit)
        self._sizes[stream] += moved
        return moved

    def write(self, stream: int, data: bytes, now_ms: int) -> None:
        """Keep bytes that no pipe brings, and count those that have no room any more."""
        room = 0 if self._error is not None else max(0, self.max_bytes - sum(self._sizes))
        kept = memoryview(data)[:room]
        try:
            while kept:
                self._prepare(stream, now_ms)
                written = os.pwrite(self._files[stream], kept, self._sizes[stream])
                self._sizes[stream] += written
                kept = kept[written:]
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._error = os.strerror(error.errno or 0)
        self._count_dropped(stream, len(kept) + max(0, len(data) - room))

    def rewind(self, stream: int, size: int) -> None:
        """Take back what was kept of a stream from here on: its source gave something else in its place."""
        if self._files[stream] < 0:
            self._open(stream)
        os.ftruncate(self._files[stream], size)
        self._sizes[stream] = size
        self.dropped[stream] = 0
        data = os.pread(self._index, self._index_end, 0)[HEAD.size :]
        kept = [e for e in entries.unpack(data) if e.stream != stream or e.offset < size]
        body = HEAD.pack(MAGIC, *self.dropped) + b"".join(map(entries.pack, kept))
        os.ftruncate(self._index, 0)
        os.pwrite(self._index, body, 0)
        self._index_end = len(body)
        self._last[stream] = next((e for e in reversed(kept) if e.stream == stream), None)

    def _drop(self, stream: int, pipe: int, limit: int) -> int:
        try:
            moved = os.splice(pipe, _SINK, limit, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return -1
        self._count_dropped(stream, moved)
        return moved

    def _count_dropped(self, stream: int, count: int) -> None:
        if not count:
            return
        self.dropped[stream] += count
        self._tell_dropped()

    def _tell_dropped(self) -> None:
        """In the head of the index. Where that has no room it is told at the end."""
        self._untold = True
        try:
            if self._index >= 0:
                self._write_head()
            elif self._error is None:
                self._open_index()
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._untold = error.errno in NO_ROOM
        else:
            self._untold = False

    def finish(self, now_ms: int) -> None:
        """All has been moved: note what was dropped at the end of the stream, and close the files. They stay
        open, and ``stalled`` is set, where the disk has no room for the count of what was dropped."""
        if self._untold:
            self._tell_dropped()
        self.stalled = self._untold
        if self.stalled:
            return
        for stream in (0, 1):
            if self.dropped[stream] and not self._marked:
                self._mark(stream, now_ms)
        self.close()

    def close(self) -> None:
        """Close the files; they stay as they are."""
        for fd in (*self._files, self._index):
            if fd >= 0:
                os.close(fd)
        self._files = [-1, -1]
        self._index = -1

    def _mark(self, stream: int, now_ms: int) -> None:
        why = self._error or f"logs.max_bytes is {self.max_bytes}"
        self.remark(
            stream, f"{self.dropped[stream]} bytes of {STREAMS[stream]} were dropped here: {why}", now_ms
        )

    def remark(self, stream: int, text: str, now_ms: int) -> None:
        """A note of our own in the output, on a line to itself and marked as such in the index."""
        self._put(stream, f"\n[towline: {text}]\n".encode(), now_ms)

    def note(self, stream: int, text: str, now_ms: int) -> None:
        """The same where it begins a line anyway: nothing but notes has come before."""
        self._put(stream, f"[towline: {text}]\n".encode(), now_ms)

    def _put(self, stream: int, data: bytes, now_ms: int) -> None:
        size = self._sizes[stream]
        try:
            self._prepare(stream, now_ms, MARKER)
            if os.pwrite(self._files[stream], data, size) == len(data):
                self._sizes[stream] += len(data)
            else:
                os.ftruncate(self._files[stream], size)  # no half of one
        except OSError as error:
            if error.errno not in _FULL:
                raise  # where there is no room for a note either, the head of the index has the count

    def _prepare(self, stream: int, now_ms: int, kind: int = DATA) -> None:
        """Open what is not open yet, and write the entry for bytes that come now, if they need one."""
        if self._files[stream] < 0:
            self._open(stream)
        size = self._sizes[stream]
        last = self._last[stream]
        if last is not None and kind == DATA:
            near = now_ms - last.at_ms < _COALESCE_MS and size - last.offset < _COALESCE_BYTES
            if now_ms == last.at_ms or (near and self._last_stream == stream):
                return
            if last.offset == size and last.kind == DATA and self._last_stream == stream:
                self._index_end -= ENTRY_BYTES  # what that entry was for has not come
        self._append(Entry(stream, kind, size, now_ms))

    def _append(self, entry: Entry) -> None:
        if os.pwrite(self._index, entries.pack(entry), self._index_end) < ENTRY_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._index_end += ENTRY_BYTES
        self._last[entry.stream] = entry
        self._last_stream = entry.stream

    def _open(self, stream: int) -> None:
        if self._index < 0:
            self._open_index()
        self._files[stream] = os.open(f"{self.directory}/{STREAMS[stream]}", _FLAGS, 0o600)

    def _open_index(self) -> None:
        Path(self.directory).mkdir(parents=True, exist_ok=True)
        self._index = os.open(f"{self.directory}/{INDEX}", _FLAGS, 0o600)
        try:
            self._write_head()
        except OSError:  # without its head it is none: the next one to need it tries again
            os.close(self._index)
            self._index = -1
            raise

    def _write_head(self) -> None:
        if os.pwrite(self._index, HEAD.pack(MAGIC, *self.dropped), 0) < HEAD.size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _resume(self) -> None:
        """Take up the files of a supervisor that died; the length of each says what it holds."""
        index = Path(self.directory, INDEX)
        for stream, name in enumerate(STREAMS):
            path = Path(self.directory, name)
            if path.exists():
                self._sizes[stream] = path.stat().st_size
        data = index.read_bytes() if index.exists() else b""
        if len(data) >= HEAD.size and data.startswith(MAGIC):
            self.dropped = list(HEAD.unpack_from(data)[1:])
        body = data[HEAD.size :]
        self._index_end = HEAD.size + len(body) // ENTRY_BYTES * ENTRY_BYTES  # over a torn entry
        known = list(entries.unpack(body))
        self._marked = any(entry.kind == MARKER and self.dropped[entry.stream] for entry in known)
        self._rebuild(known)

    def _rebuild(self, known: list[Entry]) -> None:
        """Bytes whose entries are gone get the time at which their file was last written."""
        for stream, name in enumerate(STREAMS):
            mine = [entry for entry in known if entry.stream == stream]
            if mine:
                self._last[stream] = mine[-1]
            elif self._sizes[stream]:
                at_ms = int(Path(self.directory, name).stat().st_mtime * 1000)
                with _as_far_as_there_is_room():
                    self._open(stream)
                    self._append(Entry(stream, DATA, 0, at_ms))
