"""Ships the output of this node's attempts to the server, from the files that the supervisor writes.

The files are the buffer: a slow server or link never holds up a container. What has been acknowledged to
its end is removed from the node. The link asks for the ``next`` message whenever it has nothing else to
send, so reports and heartbeats go first.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from towline.core.agent.shipping import STREAMS, Part, Shipping
from towline.core.commands import AttemptUpdate
from towline.logs.entries import STREAMS as NAMES
from towline.logs.forward import Forward
from towline.model.states import ATTEMPT_ENDED
from towline.wire.shipping import OPEN_ATTEMPTS, PART_BYTES, PART_TIMES, LogAck, LogOpen, LogPart

LOOK_EVERY_S = 0.5
"""How often the files of what runs are looked at: readers of what is newer ask the node."""
_KNOWN_FILES = 1_000
_ATTEMPT = re.compile(r"[A-Za-z0-9-]{1,200}\Z")


class Shipper:
    """``is_live``: whether an attempt may still write. ``ready`` is called when there may be something to
    send."""

    def __init__(self, output_dir: Path, is_live: Callable[[str], bool]) -> None:
        self._folder = os.fspath(output_dir)
        self._is_live = is_live
        self._shipping = Shipping(PART_BYTES)
        self._files: dict[tuple[str, int], Forward] = {}
        self._done: list[str] = []
        self._looking: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("agent.logs")
        self.ready: Callable[[], None] = lambda: None

    @property
    def under_way_bytes(self) -> int:
        return self._shipping.under_way_bytes

    # --- the link ---------------------------------------------------------------------------------
    def link_opened(self, window_bytes: int) -> None:
        """A server has welcomed the node that takes output (0: it does not)."""
        self.link_closed()
        if window_bytes <= 0:
            return
        self._shipping.link_opened(window_bytes)
        self._looking = asyncio.get_running_loop().create_task(self._look())

    def link_closed(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self._shipping.link_closed()

    def news(self, updates: Sequence[AttemptUpdate]) -> None:
        """What the supervisor says of attempts; also while there is no link."""
        for update in updates:
            self._measure(update.attempt, update.state in ATTEMPT_ENDED)
        if self._looking is not None:
            self.ready()

    # --- files ------------------------------------------------------------------------------------
    async def _look(self) -> None:
        """First what lies there from before, then what grows."""
        for name in await asyncio.to_thread(_entries, self._folder):
            if _ATTEMPT.match(name):
                self._measure(name, not self._is_live(name))
        while True:
            for name in self._shipping.growing:
                self._measure(name, not self._is_live(name))
            self._shipping.retry(_now_ms())
            self.ready()
            if self._done:
                done, self._done = self._done, []
                await asyncio.to_thread(self._remove, done)
            await asyncio.sleep(LOOK_EVERY_S)

    def _measure(self, attempt: str, ended: bool) -> None:
        """``ended`` was asked before the files are looked at: they do not grow any more if it holds."""
        stdout, stderr = (_size(f"{self._folder}/{attempt}/{name}") for name in NAMES)
        self._shipping.grown(attempt, (stdout, stderr), ended)

    def _remove(self, attempts: Sequence[str]) -> None:
        for attempt in attempts:
            shutil.rmtree(f"{self._folder}/{attempt}", ignore_errors=True)

    # --- messages ---------------------------------------------------------------------------------
    def next(self) -> LogOpen | LogPart | None:
        """What to send now; None where nothing is, or the window is used up."""
        if opened := self._shipping.openings(OPEN_ATTEMPTS):
            return LogOpen(attempts=opened)
        while (part := self._shipping.next()) is not None:
            try:
                message = self._read(part)
            except OSError as error:
                self._log.warning("output cannot be read", attempt=part.attempt, reason=str(error))
                self._shipping.refused(part.attempt, None)
                continue
            if message is not None:
                return message
        return None

    def _read(self, part: Part) -> LogPart | None:
        key = (part.attempt, part.stream)
        file = self._files.get(key)
        if file is None:
            if len(self._files) >= _KNOWN_FILES:
                self._files.clear()
            file = self._files[key] = Forward(f"{self._folder}/{part.attempt}", part.stream)
        data, times = file.read(part.offset, part.limit, PART_TIMES) if part.limit else (b"", ())
        end = self._shipping.sent(part, len(data))
        if not data and not end:
            return None
        return LogPart(
            attempt=part.attempt, stream=part.stream, offset=part.offset, data=data, times=times, end=end
        )

    def acked(self, ack: LogAck) -> None:
        if ack.error is not None:
            self._log.warning("output was refused", attempt=ack.attempt, reason=ack.error)
            retry_at_ms = None if ack.retry_ms is None else _now_ms() + ack.retry_ms
            self._shipping.refused(ack.attempt, retry_at_ms)
            self._forget_files(ack.attempt)
        elif self._shipping.acked(ack.attempt, ack.sizes, ack.ended, ack.window_bytes):
            self._forget_files(ack.attempt)
            self._done.append(ack.attempt)

    def _forget_files(self, attempt: str) -> None:
        for stream in STREAMS:
            self._files.pop((attempt, stream), None)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
