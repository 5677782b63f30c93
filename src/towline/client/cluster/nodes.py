"""The nodes of a pool: what they have, and taking them out of service."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from towline.client.api import Client, part_of
from towline.model.views import NodeView, PeerView


class Nodes:
    """A node is meant by its name or its id, where ``pool`` is given of that pool. Methods raise NotFound
    where there is none, or several."""

    def __init__(self, client: Client, pool: str | None = None) -> None:
        self._client = client
        self._pool = pool

    async def get(self, node: str) -> NodeView:
        return await self._client.get(NodeView, _path(node), pool=self._pool)

    async def drain(self, node: str, deadline: str | None = None) -> NodeView:
        """It takes nothing new. ``deadline``, such as ``30m``: when what still runs is moved."""
        return await self._changed(node, "drain", {"deadline": deadline})

    async def undrain(self, node: str) -> NodeView:
        return await self._changed(node, "undrain", None)

    async def forget(self, node: str, force: bool = False) -> None:
        """Take out for good a node that is not connected. Raises RequestError where it is, unless forced."""
        query = {"force": True if force else None, "pool": self._pool}
        await self._client.request("DELETE", _path(node), query=query)

    async def _changed(self, node: str, how: str, body: object) -> NodeView:
        path = f"{_path(node)}/{how}"
        answer = await self._client.request("POST", path, query={"pool": self._pool}, body=body)
        return msgspec.json.decode(answer, type=NodeView)


class _ServerList(Struct, kw_only=True):
    servers: list[PeerView]


async def servers(client: Client) -> list[PeerView]:
    """All servers of the cluster, and which pools each of them leads."""
    return (await client.get(_ServerList, "/v1/servers")).servers


def _path(node: str) -> str:
    return f"/v1/nodes/{part_of(node, 'node')}"
