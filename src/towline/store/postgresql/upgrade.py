"""Bring the database's schema to this build's revision, or refuse it with a sentence.

Alembic writes the missing revisions down as SQL, and one transaction of ours runs them: it needs no other
driver. A lock that only this takes makes servers that start at once go one after the other.
"""

from __future__ import annotations

from towline.errors import StoreError
from towline.store.address import Address
from towline.store.migrations import HEAD
from towline.store.postgresql.connections import Driver, connect
from towline.store.postgresql.errors import EXPECTED, explain
from towline.store.upgrade import check_known, check_open, script

_LOCK = 0x746F776C0001
SESSION_OF_UPGRADES = {
    "statement_timeout": "0",
    "lock_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
}
_FOUND = """
SELECT to_regclass('alembic_version') IS NOT NULL, to_regclass('compatibility') IS NOT NULL,
  EXISTS (SELECT FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p'))
"""


async def prepare(address: Address) -> str | None:
    """Create or upgrade the schema; cheap where nothing is to be done. Returns the revision that was there,
    None for an empty database. Raises StoreError."""
    try:
        connection = await connect(address, **SESSION_OF_UPGRADES)
        try:
            return await _prepare(address, connection)
        finally:
            await connection.close()
    except EXPECTED as error:
        raise explain(address, error) from error


async def _prepare(address: Address, connection: Driver) -> str | None:
    found = await revision(address, connection)
    if not _serves(found, address, await _oldest(connection)):
        script(found)  # what takes long is done before the lock
        async with connection.transaction():
            found = await locked_revision(address, connection)
            if not _serves(found, address, await _oldest(connection)):
                await connection.execute(script(found))
    check_open(await connection.fetchval("SELECT max(reason) FROM closure"), str(address))
    return found


async def locked_revision(address: Address, connection: Driver) -> str | None:
    """As ``revision``; until the end of the transaction nobody else changes the schema."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    return await revision(address, connection)


def _serves(found: str | None, address: Address, oldest: str | None) -> bool:
    """Whether nothing is to be done. Raises StoreError."""
    check_known(found, str(address), oldest)
    return found is not None and found >= HEAD


async def revision(address: Address, connection: Driver) -> str | None:
    """What the database's schema is; None where it is empty. Raises StoreError."""
    ours, _, others = await connection.fetchrow(_FOUND)
    if ours:
        return await connection.fetchval("SELECT version_num FROM alembic_version")
    if others:
        raise StoreError(
            f"{address} is a database of something else: make one for Towline alone, with createdb"
        )
    return None


async def _oldest(connection: Driver) -> str | None:
    """The oldest revision whose builds may use the schema; None where none but its own may."""
    _, told, _ = await connection.fetchrow(_FOUND)
    return await connection.fetchval("SELECT max(oldest) FROM compatibility") if told else None
