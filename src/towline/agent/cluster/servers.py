"""Where the servers of the cluster are, and which one is asked next.

The leader is found by asking: any server says who leads. Known are the servers that a server has told of
last, those of the settings, and the one of the join link, which is never forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

MOST_KNOWN = 16


class Servers:
    """URLs, ``https://HOST:PORT``. ``first`` stays known whatever servers say; ``told`` are those of last
    time, and ``keep`` is called with those of the next."""

    def __init__(
        self,
        first: str,
        told: Sequence[str] = (),
        keep: Callable[[tuple[str, ...]], None] = lambda _: None,
        shuffle: Callable[[list[str]], None] = random.shuffle,
    ) -> None:
        self._shuffle = shuffle
        self._fixed = (first,)
        self._told = tuple(told)
        self._keep = keep
        self._queue: list[str] = []
        self._failed: set[str] = set()
        self.current = first
        """The one that has welcomed this node last; what goes beside the link goes there too."""

    def also(self, more: Sequence[str]) -> None:
        """These stay known too."""
        self._fixed = tuple(dict.fromkeys([*self._fixed, *more]))

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self._told, *self._fixed]))

    @property
    def several(self) -> bool:
        return len(self.all) > 1

    def next(self) -> str:
        """Whom to ask now: the one that was pointed to, or each in its turn, the last leader first, and last
        those that could not be reached."""
        if not self._queue:
            others = [url for url in self.all if url != self.current]
            self._shuffle(others)
            self._queue = [self.current, *others] if self.current in self.all else others
            self._queue.sort(key=lambda url: url in self._failed)
        return self._queue.pop(0)

    def failed(self, url: str) -> None:
        """It could not be reached."""
        self._failed.add(url)

    @property
    def has_more(self) -> bool:
        """Whether there are some that were not asked yet in this round."""
        return bool(self._queue)

    def silent(self) -> None:
        """The server of the link says nothing: others are asked before it."""
        others = [url for url in self.all if url != self.current]
        self._shuffle(others)
        self._queue = [*others, self.current]

    def welcomed(self, url: str, told: Sequence[str]) -> None:
        self.current = url
        self._queue.clear()
        self._failed.clear()
        self.heard_of(told)

    def heard_of(self, told: Sequence[str]) -> None:
        """A server has told of all that are up; the order means nothing. Others that were known stay known,
        behind these: one that was away when this was said may be the next leader."""
        if told and not set(told) <= set(self._told[: len(told)]):
            self._told = tuple(dict.fromkeys([*told, *self._told]))[:MOST_KNOWN]
            self._keep(self._told)

    def moved(self, leader: str) -> bool:
        """Whether to ask ``leader`` at once: not one that could not be reached a moment ago."""
        if leader in self._failed:
            self._failed.clear()  # it may be asked again after the pause
            self._queue.clear()
            return False
        self._queue.insert(0, leader)
        return True
