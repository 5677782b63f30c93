"""What a server of a cluster has beyond one of a single machine."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from functools import partial

from towline.core.leadership import LeaseRow
from towline.server.access.authority import Authority, open_authority
from towline.server.access.enrolments import Enrolments
from towline.server.access.tokens import Tokens, now_ms
from towline.server.vault import Vault
from towline.store.port import Store

AUTHORITY_LEASE = "/authority"
"""No pool's: the first server that takes it makes the authority."""


CATCH_UP_S = 0.25
"""At most so often is it read anew because of somebody who is not known."""


@dataclass(frozen=True)
class Access:
    """Held by the API's service."""

    authority: Authority
    tokens: Tokens
    enrolments: Enrolments
    newest: Newest


class Newest:
    """Reads tokens and enrolments anew where somebody comes who is not known: another server may have let
    him in a moment ago. However many such there are, that is seldom."""

    def __init__(self, tokens: Tokens, enrolments: Enrolments) -> None:
        self._load = (tokens.load, enrolments.load)
        self._turn = asyncio.Lock()
        self._begun_s = self._tried_s = float("-inf")

    async def catch_up(self) -> None:
        """What was there when it was called is known when it returns. Raises StoreError."""
        came_s = time.monotonic()
        async with self._turn:
            if self._begun_s >= came_s:
                return
            await asyncio.sleep(max(0.0, self._tried_s + CATCH_UP_S - time.monotonic()))
            self._tried_s = time.monotonic()
            for load in self._load:
                await load()
            self._begun_s = self._tried_s


async def open_access(store: Store, vault: Vault) -> Access:
    """Everything of it, read from the store; made at the first start. Raises VaultError, StoreError."""
    first = partial(store.lease_take, LeaseRow(AUTHORITY_LEASE), secrets.token_hex(8), now_ms())
    authority = await open_authority(vault, is_first=first)
    tokens = Tokens(store)
    await tokens.load()
    enrolments = Enrolments(store, authority, tokens)
    await enrolments.load()
    return Access(authority, tokens, enrolments, Newest(tokens, enrolments))
