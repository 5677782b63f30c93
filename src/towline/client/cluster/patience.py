"""How long a request is repeated while no server answers, and telling the user that it waits."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping

TELL_AFTER_S = 2.5
_FIRST_DELAY_S = 0.05
_MAX_DELAY_S = 2.0

Tell = Callable[[float], None]
"""Is called with the seconds that are left, where a request has found no server for ``TELL_AFTER_S``."""


class Patience:
    """Of one request, as a context manager around all its tries. In between it waits, doubling, ± half."""

    def __init__(self, limit_s: float, tell: Tell | None) -> None:
        self._deadline = time.monotonic() + limit_s
        self._delay_s = _FIRST_DELAY_S
        self._tell = tell
        self._asked = False
        """Whether a server has the request: its answer may take as long as it wants."""
        self._due = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Patience:
        if self._tell is not None:
            self._timer = asyncio.get_running_loop().call_later(TELL_AFTER_S, self._tell_soon)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def left_s(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    @property
    def ended(self) -> bool:
        return self.left_s == 0

    async def trace(self, event: str, _: Mapping[str, object]) -> None:
        """The HTTP client's extension of this name: what becomes of the request."""
        if event.endswith("send_request_headers.started"):
            self._asked = True

    def failed(self) -> None:
        """This try has: nobody answers, or not now."""
        self._asked = False
        if self._due:
            self._tell_soon()

    async def wait(self, retry_after_s: float | None) -> None:
        delay_s = max(self._delay_s * random.uniform(0.5, 1.5), retry_after_s or 0)
        self._delay_s = min(self._delay_s * 2, _MAX_DELAY_S)
        await asyncio.sleep(min(delay_s, self.left_s))

    def _tell_soon(self) -> None:
        """Now, or when this try has failed."""
        self._due = self._asked
        if not self._asked and self._tell is not None and not self.ended:
            self._tell(self.left_s)
            self._tell = None
