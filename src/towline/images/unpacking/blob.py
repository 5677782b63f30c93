"""A layer's blob as a stream of its tar archive: decompressed, hashed and limited on the way."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any, NamedTuple

_READ_BYTES = 512 * 1024
_CHUNK_BYTES = 4 * 1024**2
_GZIP = b"\x1f\x8b"
_MAX_HEADER_BYTES = 1024**2
_RATIO = 200
_RATIO_ABOVE_BYTES = 1024**3


class Refused(Exception):
    """What is wrong with the content, for people; without the image's name."""


class Limits(NamedTuple):
    """Of one image, all its layers together."""

    total_bytes: int
    entries: int


class Spent:
    """How much of the limits is used up."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.bytes = 0
        self.entries = 0

    def add_bytes(self, count: int) -> None:
        self.bytes += count
        if self.bytes > self._limits.total_bytes:
            raise Refused(
                f"unpacked it is larger than {self._limits.total_bytes:,} bytes, which is the limit"
            )

    def add_entry(self) -> None:
        self.entries += 1
        if self.entries > self._limits.entries:
            raise Refused(f"it has more than {self._limits.entries:,} files, which is the limit")


class Blob:
    """Reads forwards only, as far as ``tarfile`` needs to believe that it may also seek."""

    def __init__(self, path: Path, digest: str, diff_id: str, spent: Spent) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size
        self._digest, self._diff_id = digest, diff_id
        self._spent = spent
        self._compressed = hashlib.new(digest.partition(":")[0])
        self._plain = hashlib.new(diff_id.partition(":")[0])
        self._buffer = memoryview(b"")
        self._at = 0
        self._produced = 0
        begin = self._file.read(2)
        self._file.seek(0)
        self._zip: Any = zlib.decompressobj(31) if begin == _GZIP else None
        self._pending = b""
        self._ended = False

    def close(self) -> None:
        self._file.close()

    # --- what tarfile uses ------------------------------------------------------------------------
    def tell(self) -> int:
        return self._at

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != 0 or position < self._at:
            raise Refused("its archive goes backwards")
        self._skip(position - self._at)
        return self._at

    def read(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end. Headers only: contents leave through ``pieces``."""
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise Refused(f"a header of its archive is {size:,} bytes long")
        return b"".join(self._pieces(size))

    # --- contents ---------------------------------------------------------------------------------
    def pieces(self, size: int) -> Any:
        """The next ``size`` bytes, in pieces. Raises Refused where fewer are there."""
        got = 0
        for piece in self._pieces(size):
            got += len(piece)
            yield piece
        if got < size:
            raise Refused("its archive ends in the middle of a file")

    def _pieces(self, size: int) -> Any:
        while size > 0 and (self._buffer or self._fill()):
            piece = self._buffer[:size]
            self._buffer = self._buffer[len(piece) :]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def _skip(self, size: int) -> None:
        for _ in self._pieces(size):
            pass

    def finish(self) -> None:
        """Read to the end. Raises Refused where it is not what its digests say."""
        while self._buffer or self._fill():
            self._at += len(self._buffer)
            self._buffer = memoryview(b"")
        for hashed, digest in ((self._compressed, self._digest), (self._plain, self._diff_id)):
            wanted = digest.partition(":")[2]
            if hashed.hexdigest() != wanted:
                raise Refused(
                    f"the content of {digest} does not match its digest (it is {hashed.hexdigest()})"
                )

    # --- decompression ----------------------------------------------------------------------------
    def _fill(self) -> bool:
        """Get the next chunk; False at the end."""
        while not self._ended:
            plain = self._next()
            if plain:
                self._count(len(plain))
                self._plain.update(plain)
                self._buffer = memoryview(plain)
                return True
        return False

    def _next(self) -> bytes:
        raw = self._pending or self._read_raw()
        self._pending = b""
        if self._zip is None:
            self._ended = not raw
            return raw
        if not raw:
            if not self._zip.eof:
                raise Refused("its compressed data ends too early")
            self._ended = True
            return b""
        if self._zip.eof:
            return self._next_member(raw)
        try:
            plain = self._zip.decompress(raw, _CHUNK_BYTES)
        except zlib.error as error:
            raise Refused(f"its compressed data is damaged ({error})") from None
        self._pending = self._zip.unused_data if self._zip.eof else self._zip.unconsumed_tail
        return plain

    def _next_member(self, raw: bytes) -> bytes:
        """Another member of the gzip file, or zeros as padding behind the last one."""
        if not raw.strip(b"\0"):
            return b""
        if len(raw) < len(_GZIP):
            raw += self._read_raw()
        if not raw.startswith(_GZIP):
            raise Refused("something else follows its compressed data")
        self._zip = zlib.decompressobj(31)
        self._pending = raw
        return b""

    def _read_raw(self) -> bytes:
        raw = self._file.read(_READ_BYTES)
        self._compressed.update(raw)
        return raw

    def _count(self, size: int) -> None:
        self._produced += size
        self._spent.add_bytes(size)
        if self._produced > _RATIO_ABOVE_BYTES and self._produced > _RATIO * self._size:
            raise Refused(f"it unpacks to more than {_RATIO} times its size, as a decompression bomb does")
