"""Bring the database's schema to this build's revision, or refuse it with a sentence.

Alembic writes the missing revisions down as SQL, and one transaction of ours runs them: it needs no other
driver. A lock that only this takes makes servers that start at once go one after the other.
"""

from __future__ import annotations

import asyncio

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from towline.errors import WrongStore
from towline.store.address import Address
from towline.store.migrations import HEAD
from towline.store.postgresql.connections import SESSION, Driver, connect
from towline.store.postgresql.errors import EXPECTED, explain
from towline.store.upgrade import CLOSED, check_known, check_open, script

TRIES, LOCK_MS, PAUSE_S = 30, 2_000, 1.0
_LOCK = 0x746F776C0001
SESSION_OF_UPGRADES = SESSION | {
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
        connection = await connect(address, session=SESSION_OF_UPGRADES)
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
        found = await _upgraded(address, connection)
    check_open(await connection.fetchval(CLOSED), str(address))
    return found


async def _upgraded(address: Address, connection: Driver) -> str | None:
    """Returns the revision before. Servers work on meanwhile: a change that does not get its table soon lets
    them pass, since whoever comes later waits behind it, and is tried again."""
    tries = 0
    while True:
        try:
            async with connection.transaction():
                found = await locked_revision(address, connection)
                if not _serves(found, address, await _oldest(connection)):
                    await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
                    await connection.execute(script(found))
                return found
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            tries += 1
            if tries == TRIES:
                raise
        await asyncio.sleep(PAUSE_S)


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
        raise WrongStore(
            f"{address} is a database of something else: make one for Towline alone, with createdb"
        )
    return None


async def _oldest(connection: Driver) -> str | None:
    """The oldest revision whose builds may use the schema; None where none but its own may."""
    _, told, _ = await connection.fetchrow(_FOUND)
    return await connection.fetchval("SELECT max(oldest) FROM compatibility") if told else None
