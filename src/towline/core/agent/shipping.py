"""Which piece of output a node ships next: offsets and the window, as plain code.

Attempts take turns, a part each. What the server has is learnt anew on every link, from its answer to
the opening; between, only what was sent and what was acknowledged is known. An attempt is ``done`` once
the end of both streams was acknowledged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import IntEnum

from msgspec import Struct, field

STREAMS = (0, 1)


class Part(Struct, frozen=True):
    """The next ``limit`` bytes at most of a stream. ``sent`` is to be called with how many it became."""

    attempt: str
    stream: int
    offset: int
    limit: int


class _State(IntEnum):
    CLOSED = 0  # the server was not asked on this link
    OPENING = 1
    OPEN = 2
    REFUSED = 3  # nothing of it is taken on this link, or for now


class _Log(Struct):
    """``sizes`` are those of the files; ``ended``: they will not grow any more."""

    sizes: list[int]
    ended: bool = False
    state: _State = _State.CLOSED
    sent: list[int] = field(default_factory=lambda: [0, 0])
    acked: list[int] = field(default_factory=lambda: [0, 0])
    end_sent: list[bool] = field(default_factory=lambda: [False, False])
    end_acked: list[bool] = field(default_factory=lambda: [False, False])
    queued: bool = False
    first: int = 0
    """The stream whose turn it is."""
    retry_at_ms: int | None = None

    @property
    def under_way(self) -> int:
        return sum(sent - acked for sent, acked in zip(self.sent, self.acked, strict=True) if sent > acked)

    def wants(self, stream: int) -> bool:
        if self.sizes[stream] > self.sent[stream]:
            return True
        return self.ended and not self.end_sent[stream]


class Shipping:
    """Of one node. Times are ms of any clock that does not go back."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._logs: dict[str, _Log] = {}
        self._turns: deque[str] = deque()
        self._to_open: dict[str, None] = {}
        self._window = 0
        self._under_way = 0

    @property
    def under_way_bytes(self) -> int:
        """Sent, and not acknowledged yet."""
        return self._under_way

    @property
    def growing(self) -> list[str]:
        """The attempts that are known and have not ended: their files may grow."""
        return [name for name, log in self._logs.items() if not log.ended]

    def knows(self, attempt: str) -> bool:
        return attempt in self._logs

    # --- the link ---------------------------------------------------------------------------------
    def link_opened(self, window_bytes: int) -> None:
        self._restart(window_bytes)
        self._to_open = {name: None for name, log in self._logs.items() if any(log.sizes)}

    def link_closed(self) -> None:
        self._restart(0)

    def _restart(self, window_bytes: int) -> None:
        self._window, self._under_way = window_bytes, 0
        self._turns.clear()
        self._to_open.clear()
        for log in self._logs.values():
            log.state, log.queued, log.retry_at_ms = _State.CLOSED, False, None

    # --- the node's files -------------------------------------------------------------------------
    def grown(self, attempt: str, sizes: tuple[int, int], ended: bool) -> None:
        """How long its files are now. An attempt that has printed nothing is not opened, nor kept once it has
        ended."""
        log = self._logs.get(attempt)
        if log is None:
            log = self._logs[attempt] = _Log([0, 0])
        log.sizes[:] = sizes
        log.ended = log.ended or ended
        if log.ended and not any(sizes):
            self.forget(attempt)
        elif log.state is _State.OPEN:
            self._queue(attempt, log)
        elif log.state is _State.CLOSED and self._window and any(sizes):
            self._to_open[attempt] = None

    def forget(self, attempt: str) -> None:
        """Nothing of it is to be shipped any more."""
        log = self._logs.pop(attempt, None)
        if log is not None:
            self._to_open.pop(attempt, None)
            if log.state is _State.OPEN:
                self._under_way -= log.under_way

    # --- what is said -----------------------------------------------------------------------------
    def openings(self, limit: int) -> tuple[str, ...]:
        """Attempts to ask the server for, that were not asked for yet."""
        names = tuple(list(self._to_open)[:limit])
        for name in names:
            del self._to_open[name]
            self._logs[name].state = _State.OPENING
        return names

    def next(self) -> Part | None:
        """What to read and send now; None where nothing is there or the window is used up."""
        room = self._window - self._under_way
        while self._turns:
            name = self._turns[0]
            log = self._logs.get(name)
            stream = None if log is None or log.state is not _State.OPEN else _turn(log)
            if log is None or stream is None:
                self._turns.popleft()
                if log is not None:
                    log.queued = False
                continue
            left = log.sizes[stream] - log.sent[stream]
            limit = max(0, min(self._part_bytes, left, room))
            if left > 0 and limit == 0:
                return None
            return Part(name, stream, log.sent[stream], limit)
        return None

    def sent(self, part: Part, count: int) -> bool:
        """``count`` bytes of the part were sent; returns whether nothing follows in its stream, which the
        message is to say. Fewer than were asked for are possible; 0 of some: the file has become shorter."""
        log = self._logs[part.attempt]
        stream = part.stream
        if count == 0 and part.limit > 0:
            log.sizes[stream] = log.sent[stream]
        log.sent[stream] += count
        self._under_way += count
        log.first = 1 - stream
        end = log.ended and log.sent[stream] >= log.sizes[stream]
        log.end_sent[stream] = log.end_sent[stream] or end
        self._turns.rotate(-1)
        return end

    def acked(self, attempt: str, sizes: Sequence[int], ended: Sequence[bool], window_bytes: int) -> bool:
        """The server has so much; returns whether that is all, and the attempt is done."""
        self._window = window_bytes if self._window else 0
        log = self._logs.get(attempt)
        if log is None or log.state not in (_State.OPENING, _State.OPEN):
            return False
        before = log.under_way if log.state is _State.OPEN else 0
        if log.state is _State.OPENING:
            log.state = _State.OPEN
            log.sent[:], log.end_sent[:] = sizes, ended
        log.acked[:], log.end_acked[:] = sizes, ended
        self._under_way += log.under_way - before
        if all(log.end_acked):
            self.forget(attempt)
            return True
        self._queue(attempt, log)
        return False

    def refused(self, attempt: str, retry_at_ms: int | None) -> None:
        """Nothing more is taken of it on this link, or until then."""
        log = self._logs.get(attempt)
        if log is None or log.state is _State.REFUSED:
            return  # it was sent before the first refusal had arrived
        if log.state is _State.OPEN:
            self._under_way -= log.under_way
        log.state, log.retry_at_ms = _State.REFUSED, retry_at_ms

    def retry(self, now_ms: int) -> None:
        """Open again what was refused for a time that is over."""
        for name, log in self._logs.items():
            if log.state is _State.REFUSED and log.retry_at_ms is not None and log.retry_at_ms <= now_ms:
                log.state, log.retry_at_ms = _State.CLOSED, None
                self._to_open[name] = None

    def _queue(self, attempt: str, log: _Log) -> None:
        if not log.queued and any(log.wants(stream) for stream in STREAMS):
            log.queued = True
            self._turns.append(attempt)


def _turn(log: _Log) -> int | None:
    for stream in (log.first, 1 - log.first):
        if log.wants(stream):
            return stream
    return None
