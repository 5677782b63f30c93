"""Tokens, join links and the audit of a cluster."""

from __future__ import annotations

import msgspec

from towline.client.api import Client, part_of
from towline.model.access_views import AuditView, JoinView, TokenList, TokenView, WhoView


class Access:
    """Methods raise RequestError (Forbidden where the caller is no admin), as those of the client do."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def whoami(self) -> WhoView:
        return await self._client.get(WhoView, "/v1/whoami")

    async def tokens(self) -> TokenList:
        """Tokens in order of their names, and unused join links."""
        return await self._client.get(TokenList, "/v1/tokens")

    async def create(
        self, name: str, role: str, lifetime: str | None = None, namespace: str | None = None
    ) -> TokenView:
        """A new token; its text is shown now and never again. ``lifetime`` as in ``30d``; ``namespace`` None:
        the caller's, and all for an admin made by one of all."""
        body = {"name": name, "role": role, "lifetime": lifetime, "namespace": namespace}
        answer = await self._client.request("POST", "/v1/tokens", body=body)
        return msgspec.json.decode(answer, type=TokenView)

    async def create_join(
        self, lifetime: str | None = None, address: str | None = None, pool: str | None = None
    ) -> JoinView:
        """A join link for one machine, into a pool. Raises NotFound for one that is not there."""
        given = {"lifetime": lifetime, "address": address, "pool": pool}
        body = {name: value for name, value in given.items() if value is not None}
        answer = await self._client.request("POST", "/v1/tokens/join", body=body)
        return msgspec.json.decode(answer, type=JoinView)

    async def delete(self, token: str) -> TokenView:
        """A token by its name or id, a join link by its id. Raises NotFound."""
        answer = await self._client.request("DELETE", f"/v1/tokens/{part_of(token, 'token')}")
        return msgspec.json.decode(answer, type=TokenView)

    async def authority(self) -> str:
        """The certificate of the cluster's authority, PEM."""
        return (await self._client.request("GET", "/v1/authority")).decode()

    async def audit(self, limit: int = 100, before: int | None = None) -> AuditView:
        """Newest first."""
        return await self._client.get(AuditView, "/v1/audit", limit=limit, before=before)
