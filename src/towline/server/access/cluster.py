"""What a server of a cluster has beyond one of a single machine."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from towline.core.leadership import LeaseRow
from towline.errors import StoreError
from towline.server.access.authority import Authority, open_authority
from towline.server.access.enrolments import Enrolments
from towline.server.access.tokens import Tokens, now_ms
from towline.server.vault import Vault
from towline.store.port import Store

AUTHORITY_LEASE = "/authority"
"""No pool's: the first server that takes it makes the authority."""


CATCH_UP_S = 0.25
"""At most so often is it read anew because of somebody who is not known."""
LOOK_S = 0.02
"""Likewise, where it is looked first whether anything has changed."""
REST = 9
"""So many times as long as that took nothing is read: a cluster may have very many nodes."""
LONGEST_REST_S = 5.0
"""But no longer: where it took long because the store stood still, whoever is new would wait for minutes."""


@dataclass(frozen=True)
class Access:
    """Held by the API's service."""

    authority: Authority
    tokens: Tokens
    enrolments: Enrolments
    newest: Newest


class Loaded(Protocol):
    """What is held in memory of the store."""

    async def load(self) -> None: ...


class Newest:
    """Reads anew what is held where somebody or something comes that is not known: another server may have
    let him in a moment ago. However many such there are, that is seldom, and never most of the time."""

    def __init__(self, *held: Loaded, least_s: float | None = None) -> None:
        self._held = held
        self._least_s = CATCH_UP_S if least_s is None else least_s
        self._turn = asyncio.Lock()
        self._begun_s = self._next_s = float("-inf")
        self._failed: StoreError | None = None
        """What came of the last read."""

    async def catch_up(self) -> None:
        """What was there when it was called is known when it returns. Raises StoreError: all who wait for a
        read that fails are told so, since each one's own would take as long again."""
        came_s = time.monotonic()
        async with self._turn:
            if self._begun_s < came_s:
                await asyncio.sleep(max(0.0, self._next_s - time.monotonic()))
                await self._read()
            if self._failed is not None:
                raise StoreError(str(self._failed))

    async def _read(self) -> None:
        begun_s, failed = time.monotonic(), None
        try:
            for one in self._held:
                await one.load()
        except StoreError as error:
            failed = error
        finally:
            ended_s = time.monotonic()
            rest_s = 0.0 if failed is not None else min(REST * (ended_s - begun_s), LONGEST_REST_S)
            self._next_s = max(begun_s + self._least_s, ended_s + rest_s)
        self._begun_s, self._failed = begun_s, failed


async def open_access(store: Store, vault: Vault) -> Access:
    """Everything of it, read from the store; made at the first start. Raises VaultError, StoreError."""
    first = partial(store.lease_take, LeaseRow(AUTHORITY_LEASE), secrets.token_hex(8), now_ms())
    authority = await open_authority(vault, is_first=first)
    tokens = Tokens(store)
    await tokens.load()
    enrolments = Enrolments(store, authority, tokens)
    await enrolments.load()
    return Access(authority, tokens, enrolments, Newest(tokens, enrolments))
