"""What a caller may do: a role in a namespace, each of which may all that the one below it may."""

from __future__ import annotations

import enum

from msgspec import Struct

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


LOCAL = Principal(name="local", role=Role.ADMIN, namespace=EVERYWHERE)
"""Whoever reaches the Unix socket of a home, which only its owner can."""
