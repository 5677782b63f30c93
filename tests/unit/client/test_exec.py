"""A command in a container, as its client hears it."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedOK

from towline.client.exec import Exec
from towline.errors import Unavailable
from towline.wire.exec import CHUNK_BYTES, Data, Exit, Open, Started, encode


class Closing:
    """A connection that the server closes behind the last of these frames: what is sent then does not arrive,
    what had come can be read still."""

    def __init__(self, *frames: bytes) -> None:
        self._frames = list(frames)
        self._begun = False

    async def send(self, _: bytes) -> None:
        if self._begun:
            raise ConnectionClosedOK(None, None)
        self._begun = True

    async def recv(self, decode: bool) -> bytes:
        if not self._frames:
            raise ConnectionClosedOK(None, None)
        return self._frames.pop(0)


async def read(connection: Any) -> tuple[int, Exit | None]:
    running, size = Exec(connection), 0
    await running.start(Open(argv=("cat",)))
    async for data in running.output():
        size += len(data.data)
        await running.written(data)
    return size, running.ended


async def test_a_command_whose_server_has_closed_behind_its_end_has_ended() -> None:
    output = [encode([Data(1, bytes(CHUNK_BYTES))]) for _ in range(64)]
    ended = Exit(code=3, signal=None)
    assert await read(Closing(encode([Started("job-0-0-1")]), *output, encode([ended]))) == (
        64 * CHUNK_BYTES,
        ended,
    )


async def test_a_connection_that_closes_before_the_end_is_lost() -> None:
    with pytest.raises(Unavailable, match="is lost"):
        await read(Closing(encode([Started("job-0-0-1")]), encode([Data(1, bytes(CHUNK_BYTES))])))
