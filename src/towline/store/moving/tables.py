"""What is moved, table by table, and the two ends between which it moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Protocol

from msgspec import Struct
from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Text

from towline.store.schema import metadata

ROWS_A_PIECE, BYTES_A_PIECE = 5_000, 16 * 2**20
"""What is held in memory and written at once: at most so many rows, and no more once they are so large."""
LEFT_OUT = frozenset({"lease", "server", "compatibility", "closure"})
"""What only tells of servers that run, or of the schema itself."""

_KINDS: tuple[tuple[type[Any], str], ...] = (
    (BigInteger, "number"),
    (Integer, "small"),
    (Boolean, "flag"),
    (LargeBinary, "bytes"),
    (Text, "text"),
)

Row = tuple[Any, ...]


class Shape(Struct, frozen=True):
    """A table: its columns with their kinds (``text``, ``number``, ``small``, ``flag``, ``bytes``), and its
    key."""

    name: str
    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def flags(self) -> tuple[int, ...]:
        """The places of what is true or false."""
        return tuple(at for at, kind in enumerate(self.kinds) if kind == "flag")


def shapes() -> list[Shape]:
    """Of all tables of this build's schema that are moved, in their order there."""
    return [
        Shape(
            str(table.name),
            tuple(str(column.name) for column in table.columns),
            tuple(_kind(column.type) for column in table.columns),
            tuple(str(column.name) for column in table.primary_key),
        )
        for table in metadata.tables.values()
        if table.name not in LEFT_OUT
    ]


def size_of(row: Row) -> int:
    """About how many bytes it takes."""
    return sum(len(cell) if isinstance(cell, str | bytes) else 8 for cell in row)


def in_pieces(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in order, cut by their number and by their size; one that is larger stands alone."""
    piece: list[Row] = []
    held = 0
    for row in rows:
        size = size_of(row)
        if piece and (len(piece) == ROWS_A_PIECE or held + size > BYTES_A_PIECE):
            yield piece
            piece, held = [], 0
        piece.append(row)
        held += size
    if piece:
        yield piece


def _kind(of: object) -> str:
    return next(name for known, name in _KINDS if isinstance(of, known))


class Source(Protocol):
    """Where rows come from, all of them as they are at one moment."""

    @property
    def revision(self) -> str: ...

    @property
    def shapes(self) -> Sequence[Shape]: ...

    async def count(self, shape: Shape) -> int: ...

    def rows(self, shape: Shape) -> AsyncIterator[list[Row]]:
        """In pieces, in order of the key; flags are booleans."""
        ...


class Target(Protocol):
    """Where rows go: in one transaction, so that a target is empty or has everything."""

    async def begin(self, revision: str) -> None:
        """Make the schema as it was in this revision. Raises StoreError where the target is not empty."""
        ...

    async def write(self, shape: Shape, rows: list[Row]) -> None: ...

    async def count(self, shape: Shape) -> int: ...

    async def finish(self, closed: str | None) -> None:
        """Bring the schema up to date, go on to the next term or, with ``closed``, close the store for this
        reason; then everything is there for good."""
        ...
