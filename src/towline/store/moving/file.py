"""A backup file as an end: gzip of MessagePack, a header, the rows in pieces, and a trailer with all counts.

It holds what the store holds: digests of tokens, and secrets as the vault has encrypted them, whose key is a
file of the server's home. So it is its owner's alone (mode 0600).
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct

from towline.errors import StoreError
from towline.store.migrations import HEAD, REVISIONS
from towline.store.moving.sqlite import sync_folder
from towline.store.moving.tables import Row, Shape

FORMAT = "towline-backup-1"
_LENGTH_BYTES = 4
_LONGEST_BYTES = 2**31
_BLOCK_BYTES = 2**20


class Header(Struct, frozen=True, kw_only=True):
    """The first record. ``made_at`` is unix ms, ``origin`` names the store without a password."""

    format: str
    revision: str
    made_at: int
    origin: str
    shapes: list[Shape]
    counts: dict[str, int]


class Piece(Struct, frozen=True):
    """Some rows of a table; the last record has no table, and says how many rows there were in all."""

    table: str
    rows: list[list[Any]]
    total: int = 0


def _check_whole(path: Path) -> None:
    """Read all of it once, to the checksum at its end: nothing of a damaged file is ever used."""
    try:
        with gzip.GzipFile(path, "rb") as file:
            while file.read(_BLOCK_BYTES):
                pass
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise StoreError(f"{path} is damaged, or no backup of Towline: {error}") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error


class FileTarget:
    """A new file, written beside its place and put there whole. Raises StoreError where there is one, or one
    is being written."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path.absolute()
        self._draft = self.path.with_name(f"{self.path.name}.new")
        if self.path.exists():
            raise StoreError(f"{self.path} is there already: choose another name")
        self._total = 0
        self._in_place = False
        try:
            # Nobody else's file is ever written, whatever name leads to it.
            handle = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise StoreError(
                f"{self._draft} is there already: another backup to this place is being written, or one was "
                "broken off; remove it if none is, or choose another name"
            ) from None
        except OSError as error:
            raise self._broken(error) from error
        self._raw = os.fdopen(handle, "wb")
        self._zip = gzip.GzipFile(fileobj=self._raw, mode="wb", compresslevel=1, mtime=0)
        try:
            self._put(header)
        except BaseException:
            self.close()
            raise

    def write(self, shape: Shape, rows: list[Row]) -> None:
        self._total += len(rows)
        self._put(Piece(shape.name, cast("list[list[Any]]", rows)))

    def finish(self) -> None:
        """Everything is on the disk when this returns."""
        self._put(Piece("", [], self._total))
        try:
            self._zip.close()
            self._raw.flush()
            os.fsync(self._raw.fileno())
            self._raw.close()
            self._draft.rename(self.path)
            self._in_place = True
            sync_folder(self.path.parent)
        except OSError as error:
            raise self._broken(error) from error

    def close(self) -> None:
        """Without ``finish`` nothing stays."""
        if not self._in_place:
            with suppress(OSError):  # on a full disk there is no room for what it holds back either
                self._raw.close()
            self._draft.unlink(missing_ok=True)

    def _put(self, record: Header | Piece) -> None:
        data = msgspec.msgpack.encode(record)
        if len(data) >= _LONGEST_BYTES:
            what = f"a row of table {record.table}" if isinstance(record, Piece) else "the list of tables"
            raise StoreError(f"{self.path} cannot be written: {what} takes {len(data)} bytes: too many")
        try:
            self._zip.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> StoreError:
        return StoreError(f"{self.path} cannot be written: {error.strerror or error}")


class FileSource:
    """A backup. Raises StoreError for a file that is none, is damaged, or is of a newer version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_whole(path)
        self._zip = gzip.GzipFile(path, "rb")
        self.header = self._header()
        self.shapes = self.header.shapes
        self.revision = self.header.revision
        self._ahead: Piece | None = None
        self._total = 0

    def _header(self) -> Header:
        try:
            header = msgspec.msgpack.decode(self._record(), type=Header)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self.path} is no backup of Towline: {error}") from None
        if header.format != FORMAT or header.revision not in REVISIONS:
            raise StoreError(
                f"{self.path} was made by a newer Towline (its schema is {header.revision}, "
                f"this one knows up to {HEAD}): use that version"
            )
        return header

    def _record(self) -> bytes:
        try:
            head = self._zip.read(_LENGTH_BYTES)
            length = int.from_bytes(head, "big")
            data = self._zip.read(length) if len(head) == _LENGTH_BYTES and length < _LONGEST_BYTES else b""
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror or error}") from error
        if not data or len(data) != length:
            raise StoreError(f"{self.path} is damaged, or no backup of Towline: it ends too early")
        return data

    def _piece(self) -> Piece:
        piece, self._ahead = self._ahead, None
        if piece is not None:
            return piece
        try:
            return msgspec.msgpack.decode(self._record(), type=Piece)
        except msgspec.MsgspecError as error:
            raise StoreError(f"{self.path} is damaged: {error}") from None

    def close(self) -> None:
        self._zip.close()

    async def count(self, shape: Shape) -> int:
        return self.header.counts[shape.name]

    async def rows(self, shape: Shape) -> AsyncIterator[list[Row]]:
        """The tables have to be read in their order in the file."""
        while (piece := self._piece()).table == shape.name:
            self._total += len(piece.rows)
            yield [tuple(row) for row in piece.rows]
        self._ahead = piece

    def check_end(self) -> None:
        """Raises StoreError unless everything was read, to the end."""
        piece = self._piece()
        if piece.table or piece.total != self._total or self._zip.read(1):
            raise StoreError(f"{self.path} is damaged: it does not end where its rows do")
