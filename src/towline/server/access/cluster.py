"""What a server of a cluster has beyond one of a single machine."""

from __future__ import annotations

import secrets
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


@dataclass(frozen=True)
class Access:
    """Held by the API's service."""

    authority: Authority
    tokens: Tokens
    enrolments: Enrolments


async def open_access(store: Store, vault: Vault) -> Access:
    """Everything of it, read from the store; made at the first start. Raises VaultError, StoreError."""
    first = partial(store.lease_take, LeaseRow(AUTHORITY_LEASE), secrets.token_hex(8), now_ms())
    authority = await open_authority(vault, is_first=first)
    tokens = Tokens(store)
    await tokens.load()
    enrolments = Enrolments(store, authority, tokens)
    await enrolments.load()
    return Access(authority, tokens, enrolments)
