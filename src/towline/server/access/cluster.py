"""What a server of a cluster has beyond one of a single machine."""

from __future__ import annotations

from dataclasses import dataclass

from towline.server.access.authority import Authority, open_authority
from towline.server.access.enrolments import Enrolments
from towline.server.access.tokens import Tokens
from towline.server.vault import Vault
from towline.store.port import Store


@dataclass(frozen=True)
class Access:
    """Held by the API's service."""

    authority: Authority
    tokens: Tokens
    enrolments: Enrolments


async def open_access(store: Store, vault: Vault) -> Access:
    """Everything of it, read from the store; made at the first start. Raises VaultError, StoreError."""
    authority = await open_authority(vault)
    tokens = Tokens(store)
    await tokens.load()
    enrolments = Enrolments(store, authority, tokens)
    await enrolments.load()
    return Access(authority, tokens, enrolments)
