"""Problem documents of the layers in front of the API, which has its own way to answer."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import cast

import msgspec
from litestar.types import Message, Scope, Send

LONGEST_S = 2
"""A caller is told to come again after so many seconds at most: a leader may be there before it is known."""
_KINDS = {
    400: ("invalid", "The request is wrong"),
    404: ("not_found", "There is no such thing"),
    503: ("unavailable", "Not now: repeat the request"),
}


async def refuse(
    scope: Scope, send: Send, status: int, detail: str, more: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """A problem document; a WebSocket that is not open yet is answered as its request."""
    kind, title = _KINDS[status]
    body = msgspec.json.encode(
        {
            "type": f"urn:towline:problem:{kind}",
            "title": title,
            "status": status,
            "detail": detail,
            "problems": [],
        }
    )
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        *more,
    ]
    begins = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    await send(cast("Message", {"type": f"{begins}.start", "status": status, "headers": headers}))
    await send(cast("Message", {"type": f"{begins}.body", "body": body, "more_body": False}))


async def not_now(scope: Scope, send: Send, detail: str, after_ms: int = 0) -> None:
    """To be repeated, after so long at least."""
    after_s = min(LONGEST_S, max(1, ceil(after_ms / 1000)))
    await refuse(scope, send, 503, detail, [(b"retry-after", b"%d" % after_s)])
