"""Rows of the store that are held in memory: of tokens, and of enrolments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

R = TypeVar("R")


class HeldRows(dict[str, R]):
    """By their keys. Several reads of the store may be under way at once, and rows be changed here meanwhile.
    What was changed here stays so, and of two reads the one that began later counts: what was taken back is
    never there again because an answer came late."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = self._taken = 0
        self._changed: dict[int, set[str]] = {}
        """By read that is under way: what was changed here since it began."""

    def __setitem__(self, key: str, row: R) -> None:
        self._tell(key)
        super().__setitem__(key, row)

    def drop(self, key: str) -> None:
        """Be it there or not."""
        self._tell(key)
        self.pop(key, None)

    async def read(self, rows: Callable[[], Awaitable[Iterable[R]]], key: Callable[[R], str]) -> None:
        """What ``rows`` reads takes the place of what is held. Raises what it raises."""
        self._begun += 1
        mine = self._begun
        changed = self._changed[mine] = set()
        try:
            found: dict[str, Any] = {key(row): row for row in await rows()}
        finally:
            del self._changed[mine]
        if mine < self._taken:
            return
        self._taken = mine
        for one in changed:
            found.pop(one, None)
            if one in self:
                found[one] = self[one]
        self.clear()
        self.update(found)

    def _tell(self, key: str) -> None:
        for changed in self._changed.values():
            changed.add(key)
