"""Takes what the nodes of a cluster ship of their attempts' output; see wire/shipping.py.

A node is taken at its word for nothing: what it opens has to be an attempt that it was given, and each
part the next one of what it opened. What is refused is answered and logged, and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from towline.core.commands import attempt_key
from towline.errors import StoreError
from towline.logs.archive import Admission, Archive, Extent, Frame
from towline.store.port import Store
from towline.wire.shipping import (
    LEAST_WINDOW_BYTES,
    MOST_WINDOW_BYTES,
    OPEN_ATTEMPTS,
    LogAck,
    LogOpen,
    LogPart,
)

BUDGET_BYTES = 64 * 1024**2
"""What all nodes together may have sent that is not durable yet, as far as each one's least allows."""
MOST_OPEN = 20_000
"""Attempts of one node that are being shipped at a time."""
RETRY_MS = 5_000
LOGGED_REFUSALS = 20
"""Of one link; more are no news."""
_COMPLETE = Extent((0, 0), (True, True))


class Receiving:
    """Of one server. ``links`` are those of the nodes that ship. ``shared``: other servers read it too, so a
    node keeps the output of an attempt until all of it is where they find it."""

    def __init__(self, archive: Archive, store: Store, *, shared: bool = False) -> None:
        self.archive = archive
        self.shared = shared
        self._store = store
        self._links: set[ShippingLink] = set()

    def open(self, node: str, say: Callable[[LogAck], None]) -> ShippingLink:
        """A node's link has opened; ``say`` queues what it is told."""
        link = ShippingLink(self, self._store, node, say)
        self._links.add(link)
        return link

    def close(self, link: ShippingLink) -> None:
        self._links.discard(link)

    @property
    def window_bytes(self) -> int:
        share = BUDGET_BYTES // max(1, len(self._links))
        return max(LEAST_WINDOW_BYTES, min(MOST_WINDOW_BYTES, share))


class ShippingLink:
    """What one node ships on one link."""

    def __init__(self, receiving: Receiving, store: Store, node: str, say: Callable[[LogAck], None]) -> None:
        self._receiving = receiving
        self._archive = receiving.archive
        self._store = store
        self._node = node
        self._say = say
        self._admission = Admission(MOST_WINDOW_BYTES)
        self._durable: dict[str, Extent] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._refused = 0
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger("logs").bind(node=node)

    @property
    def window_bytes(self) -> int:
        """How far ahead of what is acknowledged the node may be."""
        return self._receiving.window_bytes

    def close(self) -> None:
        """The link is gone; what it has handed over still becomes durable."""
        for task in self._opening:
            task.cancel()
        self._receiving.close(self)

    def heard(self, message: LogOpen | LogPart) -> None:
        if isinstance(message, LogPart):
            self._part(message)
        elif len(self._opening) * OPEN_ATTEMPTS + self._admission.open_count > MOST_OPEN:
            for attempt in message.attempts:
                self._refuse(attempt, f"{MOST_OPEN} attempts are open already", RETRY_MS)
        else:
            task = self._loop.create_task(self._open(message.attempts))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    # --- opening ----------------------------------------------------------------------------------
    async def _open(self, attempts: tuple[str, ...]) -> None:
        for attempt in attempts:
            try:
                await self._open_one(attempt)
            except (StoreError, OSError) as error:
                self._refuse(attempt, str(error), RETRY_MS)

    async def _open_one(self, attempt: str) -> None:
        max_bytes = await self._allowed_bytes(attempt)
        if max_bytes is None:
            self._refuse(attempt, f"it is no attempt of node {self._node}")
            return
        extent = await self._asked(attempt)
        if not any(extent.sizes) and await asyncio.to_thread(self._archive.was_removed, attempt):
            extent = _COMPLETE  # it was here once, and had to make room
        self._admission.open(attempt, extent, max_bytes)
        self._durable[attempt] = extent
        if extent.complete and self._receiving.shared:
            self._hold(attempt)
        else:
            self._acknowledge(attempt)

    async def _allowed_bytes(self, attempt: str) -> int | None:
        """How long its output may be; None where it is not the node's."""
        try:
            key = attempt_key(attempt)
            row = await self._store.attempt(*key)
        except (ValueError, OverflowError):
            return None
        found = None if row is None or row.node != self._node else await self._store.job(key[0])
        if found is None:
            return None
        return list(found[1].spec.tasks.values())[key[1]].logs.max_bytes

    async def _asked(self, attempt: str) -> Extent:
        future: asyncio.Future[Extent] = self._loop.create_future()

        def answered(found: Extent | Exception) -> None:
            if future.done():
                return
            if isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found)

        self._archive.ask(attempt, lambda found: self._loop.call_soon_threadsafe(answered, found))
        return await future

    # --- parts ------------------------------------------------------------------------------------
    def _part(self, part: LogPart) -> None:
        frame = Frame(part.attempt, part.stream, part.offset, part.times, part.end, part.data)
        wrong = self._admission.take(frame)
        if wrong is not None:
            self._refuse(part.attempt, wrong, RETRY_MS)
            return
        self._archive.append(
            frame, lambda error: self._loop.call_soon_threadsafe(self._appended, frame, error)
        )

    def _appended(self, frame: Frame, error: Exception | None) -> None:
        self._admission.durable(len(frame.data))
        known = self._durable.get(frame.attempt)
        if known is None:
            return  # refused meanwhile
        if error is not None:
            self._refuse(frame.attempt, f"the server could not keep it: {error}", RETRY_MS)
            return
        self._durable[frame.attempt] = known.longer(frame.stream, len(frame.data), frame.end)
        self._acknowledge(frame.attempt)

    def _hold(self, attempt: str) -> None:
        """Acknowledge its end once other servers have it too."""
        loop = self._loop

        def away() -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(self._away, attempt)

        self._archive.when_away(away)

    def _away(self, attempt: str) -> None:
        if attempt in self._durable:
            self._acknowledge(attempt, away=True)

    def _acknowledge(self, attempt: str, *, away: bool = False) -> None:
        extent = self._durable[attempt]
        if extent.complete and self._receiving.shared and not away:
            self._hold(attempt)
            extent = Extent(extent.sizes, (False, False))
        elif extent.complete:
            self._admission.close(attempt)
            del self._durable[attempt]
        self._say(
            LogAck(
                attempt=attempt,
                sizes=extent.sizes,
                ended=extent.ended,
                window_bytes=self.window_bytes,
            )
        )

    def _refuse(self, attempt: str, why: str, retry_ms: int | None = None) -> None:
        self._admission.close(attempt)
        self._durable.pop(attempt, None)
        if self._refused < LOGGED_REFUSALS:
            self._log.warning("output was refused", attempt=attempt, reason=why)
        self._refused += 1
        self._say(LogAck(attempt=attempt, error=why, retry_ms=retry_ms))
