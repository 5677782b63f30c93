"""The WebSocket of a link, read and written in the transport's own callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State


class LinkConnection(ClientConnection):
    """Gives each whole message to ``heard`` at once, instead of to a queue. ``drained`` is called when the
    transport takes more again, after it was ``congested``."""

    heard: Callable[[bytes], None]
    drained: Callable[[], None]
    congested = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._parts: list[bytes] = []

    def process_event(self, event: Any) -> None:
        if self.response is None or not isinstance(event, Frame):
            super().process_event(event)
        elif event.opcode in (Opcode.BINARY, Opcode.CONT):
            self._parts.append(bytes(event.data))
            if event.fin:
                message = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._parts.clear()
                self.heard(message)

    def pause_writing(self) -> None:
        self.congested = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self.congested = False
        super().resume_writing()
        self.drained()

    def say(self, frame: bytes) -> None:
        if self.protocol.state is State.OPEN:
            self.protocol.send_binary(frame)
            self.send_data()
