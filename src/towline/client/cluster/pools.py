"""The pools of a cluster: one of them, and one more."""

from __future__ import annotations

import msgspec

from towline.client.api import Client
from towline.errors import NotFound
from towline.model.views import PoolView

_SHOWN = 20
"""Names of pools, where one is asked for that is not there."""


class Pools:
    """``Client.pools`` lists them."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, pool: str) -> PoolView:
        """Where its leader does not answer, only who leads it. Raises NotFound."""
        found = {view.pool: view for view in await self._client.pools()}
        if pool not in found:
            raise NotFound(f"There is no pool {pool[:100]!r}: there are {', '.join(list(found)[:_SHOWN])}.")
        return found[pool]

    async def create(self, pool: str) -> PoolView:
        """Raises Conflict for one that is there, and RequestError for what cannot be a pool's name."""
        answer = await self._client.request("POST", "/v1/pools", body={"pool": pool})
        return msgspec.json.decode(answer, type=PoolView)
