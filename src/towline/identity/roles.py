"""What a caller may do: a role in a namespace, each of which may all that the one below it may."""

from __future__ import annotations

import enum
import re

from msgspec import Struct

from towline.errors import RequestError

_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_NAMESPACE_RULE = "a name is 1 to 63 lower-case letters, digits and '-', which begins and ends with no '-'"

DEFAULT = "default"
"""The namespace where nothing is said."""
EVERYWHERE = "*"
"""In place of a namespace: all of them, and what belongs to none."""


class Role(enum.IntEnum):
    """In order of what they may."""

    VIEWER = 1
    """Read jobs, logs, artifacts, nodes and queues of its namespace."""
    SUBMITTER = 2
    """Also submit, cancel and retry jobs, and set secrets."""
    ADMIN = 3
    """Also queues, registries, nodes, tokens, and the server itself."""

    @property
    def word(self) -> str:
        return self.name.lower()


WORDS = {role.word: role for role in Role}


class Principal(Struct, frozen=True, kw_only=True):
    """Who calls. ``name`` is for the audit: ``token NAME``, ``node ID``, or ``local`` for the socket."""

    name: str
    role: Role | None
    """None: a node, which may only what nodes do."""
    namespace: str
    node: str | None = None

    def may(self, wanted: Role) -> bool:
        return self.role is not None and self.role >= wanted


def check_namespace(name: str) -> str:
    """Raises RequestError for what cannot be a namespace's name."""
    if not _NAMESPACE.match(name):
        raise RequestError(f"namespace is {name[:200]!r}: {_NAMESPACE_RULE}")
    return name


LOCAL = Principal(name="local", role=Role.ADMIN, namespace=EVERYWHERE)
"""Whoever reaches the Unix socket of a home, which only its owner can."""
