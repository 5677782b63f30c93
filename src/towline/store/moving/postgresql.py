"""A PostgreSQL database as an end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager, suppress

from towline.core.leadership import LEADERS_BITS
from towline.errors import StoreError
from towline.store.address import Address
from towline.store.migrations import HEAD
from towline.store.moving.sqlite import checked_revision, listed
from towline.store.moving.tables import BYTES_A_PIECE, ROWS_A_PIECE, Row, Shape, in_pieces, shapes, size_of
from towline.store.postgresql.connections import Driver, connect
from towline.store.postgresql.errors import EXPECTED, explain
from towline.store.postgresql.texts import without_zeros
from towline.store.postgresql.upgrade import SESSION_OF_UPGRADES, locked_revision, revision
from towline.store.upgrade import script

_SESSION = SESSION_OF_UPGRADES | {"idle_in_transaction_session_timeout": "0"}
_ROWS_AT_FIRST = 100
_RAISE = f"UPDATE pool SET term = greatest((term >> {LEADERS_BITS}) + 1, $1::bigint) << {LEADERS_BITS}"


@contextmanager
def explained(address: Address) -> Generator[None]:
    """Errors of the driver as StoreError."""
    try:
        yield
    except EXPECTED as error:
        raise explain(address, error) from error


class PostgresSource:
    """A database that is only read, in one snapshot; servers may go on meanwhile. Raises StoreError where it
    is not up to date."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.shapes = shapes()
        self.revision = HEAD
        self._connection: Driver = None

    async def open(self) -> None:
        with explained(self.address):
            self._connection = await connect(self.address, session=_SESSION)
            await self._connection.transaction(isolation="repeatable_read", readonly=True).start()
            found = await revision(self.address, self._connection)
        checked_revision(found, str(self.address))

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()

    async def count(self, shape: Shape) -> int:
        with explained(self.address):
            return await _count(self._connection, shape)

    async def rows(self, shape: Shape) -> AsyncIterator[list[Row]]:
        sql = f"SELECT {listed(shape.columns)} FROM {listed([shape.name])} ORDER BY {listed(shape.key)}"
        with explained(self.address):
            cursor = await self._connection.cursor(sql)
            wanted = _ROWS_AT_FIRST
            while found := await cursor.fetch(wanted):
                rows: list[Row] = [tuple(row) for row in found]
                # As many as are likely to fill a piece: how large the next ones are nobody says.
                likely = BYTES_A_PIECE * len(rows) // max(1, sum(map(size_of, rows)))
                wanted = max(1, min(2 * wanted, likely, ROWS_A_PIECE))
                for piece in in_pieces(rows):
                    yield piece


class PostgresTarget:
    """An empty database, filled in one transaction. Meanwhile no server can open it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._connection: Driver = None
        self.asked = False
        """Whether the database was told to keep all of it: from then on it may have done so."""

    async def begin(self, revision: str) -> None:
        with explained(self.address):
            self._connection = await connect(self.address, session=_SESSION)
            await self._connection.execute("BEGIN")
            found = await locked_revision(self.address, self._connection)
            if found is None:
                await self._connection.execute(script(None, revision))
                return
            checked_revision(found, str(self.address))
            # Who is about to lead is waited for, and found below; who comes later finds the store closed.
            await self._connection.execute("LOCK TABLE pool IN SHARE ROW EXCLUSIVE MODE")
            for shape in shapes():
                if await self._connection.fetchval(f"SELECT EXISTS (SELECT FROM {listed([shape.name])})"):
                    raise StoreError(
                        f"{self.address} is not empty: its table {shape.name} has rows; "
                        "make another database, with createdb"
                    )
            if found != revision:
                raise StoreError(
                    f"{self.address} has a schema already, and a newer one: make another database"
                )

    async def write(self, shape: Shape, rows: list[Row]) -> None:
        with explained(self.address):
            texts = [at for at, kind in enumerate(shape.kinds) if kind == "text"]
            if any("\0" in row[at] for row in rows for at in texts if row[at] is not None):
                rows = [tuple(map(without_zeros, row)) for row in rows]
            await self._connection.copy_records_to_table(shape.name, records=rows, columns=shape.columns)

    async def count(self, shape: Shape) -> int:
        with explained(self.address):
            return await _count(self._connection, shape)

    async def finish(self, closed: str | None) -> None:
        with explained(self.address):
            found = await revision(self.address, self._connection)
            if found != HEAD:
                await self._connection.execute(script(found))
            await set_acting(self._connection, closed)
            self.asked = True
            await self._connection.execute("COMMIT")
        with suppress(Exception):  # it comes by itself as well, only later
            await self._connection.execute("ANALYZE")

    async def close(self) -> None:
        """Without ``finish`` nothing is kept."""
        if self._connection is not None:
            self._connection.terminate()


async def raise_terms(connection: Driver) -> None:
    """As ``core.leadership.raised``, of all pools."""
    await connection.execute(_RAISE, int(time.time()))


async def set_acting(connection: Driver, closed: str | None) -> None:
    """Let the store be closed for this reason or, with None, be open in the next term."""
    await connection.execute("DELETE FROM closure")
    if closed is None:
        await connection.execute("UPDATE pool SET term = term + 1")
    else:
        await connection.execute(
            "INSERT INTO closure (reason, at) VALUES ($1, $2)", closed, time.time_ns() // 10**6
        )


async def _count(connection: Driver, shape: Shape) -> int:
    return int(await connection.fetchval(f"SELECT count(*) FROM {listed([shape.name])}"))
