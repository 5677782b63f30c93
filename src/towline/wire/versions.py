"""Which version of the messages an agent and a server speak with each other.

Each speaks the versions OLDEST to VERSION. An agent's Hello names both; the server takes the newest that
both speak, says so in its Welcome, and from then on neither says what that version has not. A field that is
new has a default, and one that is not known is passed over, so within a message versions need no rule.
"""

from __future__ import annotations

from msgspec import Struct

VERSION = 2
OLDEST = 1
"""The version before is spoken as well, so that agents and servers may be updated one after the other."""

LEASED = 2
"""From this version on agents keep a node lease: a cluster takes no older ones, since it could not promise
``on_disconnect: stop``."""

_FIRST = frozenset({
    "hello", "heartbeat", "report", "log", "image_answer",
    "welcome", "refused", "alive", "ack", "task", "pin", "image_call", "start", "stop", "read_log", "goodbye",
})  # fmt: skip
"""The tags of version 1; all others are of version 2."""


def agreed(oldest: int, newest: int) -> int | None:
    """The version that we and one that speaks ``oldest`` to ``newest`` speak; None where there is none."""
    found = min(newest, VERSION)
    return found if found >= max(oldest, OLDEST) else None


def has(version: int, message: type[Struct]) -> bool:
    """Whether a version has a message."""
    return version >= 2 or message.__struct_config__.tag in _FIRST


def apart(them: str, oldest: int, newest: int, us: str, least: int = OLDEST) -> str:
    """Why ``them`` and ``us``, who wants ``least`` or newer, cannot speak, and what to do."""
    older = us if oldest > VERSION else them
    return (
        f"{them} speaks {_named(oldest, newest)} of the agents' messages, and {us} {_named(least, VERSION)}: "
        f"update {older}"
    )


def _named(oldest: int, newest: int) -> str:
    return f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}"
