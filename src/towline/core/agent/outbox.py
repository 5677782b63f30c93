"""What the server has yet to hear: changes not reported, and reports not acknowledged.

Only names are kept. A report tells how an attempt stands when it is sent, so that one that is
repeated late cannot take anything back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

REPEAT_MS = 5_000
"""How long a report waits for its acknowledgement on an open link before it is sent again."""


class _Sent(NamedTuple):
    attempts: tuple[str, ...]
    at_ms: int


class Outbox:
    def __init__(self) -> None:
        self._fresh: dict[str, None] = {}
        self._sent: dict[int, _Sent] = {}
        self._seq = 0

    def __bool__(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self._fresh)

    @property
    def names(self) -> set[str]:
        """Everything that is not acknowledged."""
        return {*self._fresh, *(name for sent in self._sent.values() for name in sent.attempts)}

    def add(self, attempt: str) -> None:
        self._fresh[attempt] = None

    def add_all(self, attempts: Iterable[str]) -> None:
        self._fresh.update(dict.fromkeys(attempts))

    def discard(self, attempt: str) -> None:
        """It is not to be reported any more; a report that names it and was sent stays on its way."""
        self._fresh.pop(attempt, None)

    def send(self, now_ms: int) -> tuple[int, tuple[str, ...]]:
        """The number and the attempts of a new report."""
        names = tuple(self._fresh)
        self._fresh.clear()
        self._seq += 1
        self._sent[self._seq] = _Sent(names, now_ms)
        return self._seq, names

    def acked(self, seq: int) -> None:
        self._sent.pop(seq, None)

    def take_late(self, now_ms: int) -> list[str]:
        """The attempts of reports that have waited too long; they are no longer under way."""
        late = [seq for seq, sent in self._sent.items() if now_ms - sent.at_ms >= REPEAT_MS]
        return [name for seq in late for name in self._sent.pop(seq).attempts]

    def take_all(self) -> list[str]:
        """The attempts of all reports under way: their link is gone."""
        names = [name for sent in self._sent.values() for name in sent.attempts]
        self._sent.clear()
        return names
