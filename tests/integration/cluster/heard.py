"""What a server says on an agent's link, message by message."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from tests.integration.server_process import PATIENCE_S
from websockets.asyncio.client import ClientConnection

from towline.wire.messages import decode_from_server

M = TypeVar("M")


async def heard(link: ClientConnection, kind: type[M]) -> M:
    """The next message of a kind; what else is in its frame is left out."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            frame = await link.recv()
            assert isinstance(frame, bytes)
            for message in decode_from_server(frame):
                if isinstance(message, kind):
                    return message
