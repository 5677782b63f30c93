"""WebSockets between programs of ours: how one is opened, and how it shows that none was."""

from __future__ import annotations

from typing import Any

from websockets.exceptions import InvalidHandshake, InvalidMessage

OPTIONS: dict[str, Any] = {"compression": None, "close_timeout": 1, "user_agent_header": None}
"""For ``websockets.connect``, besides what a caller wants: its time limits, pings and the largest frame."""
NOT_OPENED = (OSError, TimeoutError, InvalidHandshake, InvalidMessage, EOFError)
"""What ``websockets.connect`` raises where there is nobody, or somebody who does not take the connection."""
