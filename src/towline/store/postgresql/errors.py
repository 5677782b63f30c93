"""What an error of PostgreSQL, of its driver or of the network means for a person, and what to do."""

from __future__ import annotations

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from towline.errors import StoreAway, StoreError, Unstorable, WrongStore
from towline.store.address import Address

_REMEDIES = {
    "28P01": "the password is wrong: look at store_url, PGPASSWORD and ~/.pgpass",
    "28000": "the login is refused: look at the user of store_url and at the server's pg_hba.conf",
    "3D000": "there is no such database: make it first, with createdb",
    "42501": "the user has not the rights: make it the owner of the database",
    "42P01": "tables are missing: run tow db upgrade",
    "42703": "columns are missing: run tow db upgrade",
    "53300": "all its connections are taken: raise max_connections of PostgreSQL (each server of Towline "
    "uses up to 10), or end what holds them",
    "53100": "its disk is full: free some space; nothing of this change was written",
    "53200": "it is out of memory: look at its log; nothing of this change was written",
    "57P03": "it is starting up or shutting down: try again in a moment",
    "57P01": "it was shut down: start it again",
    "57P02": "one of its processes crashed, and it starts again: try again in a moment",
    "57P05": "it ended the connection",
    "57014": "a statement took too long and was cancelled: look at the database's load",
    "55P03": "a lock was not free in time: look in pg_stat_activity for what holds it",
    "40P01": "two transactions waited for each other: try again",
    "25P03": "a transaction was open for too long and was ended: this machine was frozen or overloaded",
    "25006": "it takes no writes: it is a standby, or was made read-only; point store_url at the primary "
    "(several hosts may be named: HOST1:5432,HOST2:5432)",
    "58030": "its disk refuses to read or write: see its log and the kernel's",
    "XX001": "its data is damaged: restore it from a backup",
    "XX002": "an index of it is damaged: rebuild it with REINDEX",
}

LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""The connection is of no use any more; whether the last statement took effect is not known."""

EXPECTED = (asyncpg.PostgresError, *LOST, ValueError, OverflowError)
"""What may go wrong between us and the database; everything else is a bug."""

_UNSTORABLE = ("22", "23", "54")
"""Classes of errors about values: of the wrong kind or too large, against the schema, beyond a limit."""
_LONGEST_SAID = 300
_AWAY = ("57P01", "57P02", "57P03", "53300", "25006")
_WRONG = ("28P01", "28000", "3D000", "42501")
"""Those of ``_REMEDIES`` that may pass by themselves, and those for which the setting or the database has to
be changed."""
_NOT_UTF8 = ("22021", "22P05")
_STANDBY = "25006"


def explain(address: Address, error: Exception, *, doubtful: bool = False) -> StoreError:
    """A sentence with the address and what to do. ``doubtful``: whether the change took effect is not
    known."""
    code = getattr(error, "sqlstate", None)
    said = address.without_secrets(str(error).strip()) or type(error).__name__
    if is_unstorable(error):
        return Unstorable(f"{address}: it does not take a value of this: {printable(said)}")
    doubt = "; whether the change was made is not known" if doubtful and is_lost(error) else ""
    if code in _REMEDIES:
        kind = StoreAway if code in _AWAY else WrongStore if code in _WRONG else StoreError
        return kind(f"{address}: {_REMEDIES[code]} ({said}){doubt}")
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return StoreAway(f"{address}: {_REMEDIES[_STANDBY]} ({said})")
    if isinstance(error, TimeoutError):
        return StoreAway(f"{address}: it does not answer: look whether it runs and can be reached{doubt}")
    if isinstance(error, OSError):
        return StoreAway(
            f"{address}: it cannot be reached: look whether it runs, and at host and port of store_url "
            f"({said}){doubt}"
        )
    if isinstance(error, asyncpg.PostgresConnectionError | asyncpg.InterfaceError):
        return StoreAway(f"{address}: the connection was lost: look whether it runs ({said}){doubt}")
    return StoreError(f"{address}: {said}{doubt}")


def is_lost(error: BaseException) -> bool:
    """Whether the connection that raised it has to go."""
    code = getattr(error, "sqlstate", None) or ""
    lost = isinstance(error, LOST) and not isinstance(error, ValueError)  # which is about what was to be sent
    return lost or code[:3] == "57P" or code == "25P03"


def moved(error: BaseException) -> bool:
    """Whether the server at the other end is not the one that takes writes, so that all connections to
    it have to go."""
    return getattr(error, "sqlstate", None) == _STANDBY or is_lost(error)


def is_unstorable(error: BaseException) -> bool:
    """Whether it is about what was to be kept: the same will be refused again."""
    code = getattr(error, "sqlstate", None) or ""
    about_values = isinstance(error, OverflowError | ValueError) and not isinstance(error, OSError)
    return code[:2] in _UNSTORABLE or about_values


def printable(said: str) -> str:
    """Which every text column takes, and not much of it: drivers repeat the value."""
    clean = said.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    return clean if len(clean) <= _LONGEST_SAID else f"{clean[:_LONGEST_SAID]}…"


def not_text(error: BaseException) -> bool:
    """Whether a text holds what PostgreSQL keeps in none: the character 0."""
    return getattr(error, "sqlstate", None) in _NOT_UTF8
