"""The nodes of a pool: what they have, and taking them out of service."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from towline.client.api import Client, part_of
from towline.model.views import NodeView, PeerView


class Nodes:
    """A node is meant by its name or its id. Methods raise NotFound where there is none, or several."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def get(self, node: str) -> NodeView:
        return await self._client.get(NodeView, _path(node))

    async def drain(self, node: str, deadline: str | None = None) -> NodeView:
        """It takes nothing new. ``deadline``, such as ``30m``: when what still runs is moved."""
        answer = await self._client.request("POST", f"{_path(node)}/drain", body={"deadline": deadline})
        return msgspec.json.decode(answer, type=NodeView)

    async def undrain(self, node: str) -> NodeView:
        answer = await self._client.request("POST", f"{_path(node)}/undrain")
        return msgspec.json.decode(answer, type=NodeView)

    async def forget(self, node: str, force: bool = False) -> None:
        """Take out for good a node that is not connected. Raises RequestError where it is, unless forced."""
        await self._client.request("DELETE", _path(node), query={"force": "true"} if force else None)


class _ServerList(Struct, kw_only=True):
    servers: list[PeerView]


async def servers(client: Client) -> list[PeerView]:
    """All servers of the cluster, and which pools each of them leads."""
    return (await client.get(_ServerList, "/v1/servers")).servers


def _path(node: str) -> str:
    return f"/v1/nodes/{part_of(node, 'node')}"
