"""Which artifacts a node may write and read: those of attempts that it was given, and the inputs of those."""

from __future__ import annotations

from typing import NamedTuple

from towline.core.commands import AttemptKey, attempt_key
from towline.core.rows import AttemptRow
from towline.errors import NotFound
from towline.model.job import Array
from towline.model.states import ATTEMPT_ENDED, AttemptState, ElementState
from towline.server.facts import Facts
from towline.store.port import Store

PAGE = 5_000


class Needed(NamedTuple):
    """A task that another one names as input: its position, and the elements of it that an attempt may
    read."""

    job: str
    task: int
    first: int
    last: int


class Rights:
    """``node`` is whom a certificate names; None: the server's own machine, whose owner may do all."""

    def __init__(self, store: Store, facts: Facts) -> None:
        self._store = store
        self._facts = facts

    async def writable(self, node: str | None, attempt: str) -> AttemptKey:
        """An attempt whose artifacts the node may bring. It may be counted as lost: what it has done counts
        once it is taken back. Raises NotFound."""
        row = await self._own(node, attempt)
        if row is None or row.state == AttemptState.FINISHED:
            raise _no_attempt(attempt)
        return row.job, row.task, row.index, row.number

    async def needed(self, node: str | None, attempt: str, need: str) -> Needed:
        """What the attempt may read of the task ``need``. Raises NotFound."""
        row = await self._own(node, attempt)
        if row is None or row.state in ATTEMPT_ENDED:
            raise _no_attempt(attempt)
        tasks = (await self._facts.spec(row.job)).spec.tasks
        spec = list(tasks.values())[row.task]
        if need not in spec.inputs:
            raise NotFound(f"{need[:100]!r} is no input of attempt {attempt}.")
        array = tasks[need].array or Array()
        first, last = array.first, array.last
        if any(one.task == need and one.each for one in spec.needs):
            first = last = first + row.index - (spec.array or Array()).first
        return Needed(row.job, list(tasks).index(need), first, last)

    async def succeeded(self, of: Needed) -> dict[int, int]:
        """By index, the attempt that stands, of the elements that have succeeded."""
        found: dict[int, int] = {}
        after = of.first - 1
        while after < of.last:
            through = min(of.last, after + PAGE)
            page = await self._store.elements(of.job, of.task, after, through)
            succeeded = ElementState.SUCCEEDED.value
            found |= {row.index: row.number for row in page.elements if row.state == succeeded}
            after = through
        return found

    async def input_of(self, node: str | None, attempt: str, need: str, index: int) -> AttemptKey:
        """The attempt whose artifacts are input ``need`` of another one, at an index. Raises NotFound."""
        of = await self.needed(node, attempt, need)
        number = None
        if of.first <= index <= of.last:
            number = (await self.succeeded(of._replace(first=index, last=index))).get(index)
        if number is None:
            raise NotFound(f"{need}.{index} is no input of attempt {attempt}, or has not succeeded.")
        return of.job, of.task, index, number

    async def _own(self, node: str | None, attempt: str) -> AttemptRow | None:
        try:
            row = await self._store.attempt(*attempt_key(attempt))
        except (ValueError, OverflowError):
            return None
        return row if row is not None and node in (None, row.node) else None


def _no_attempt(attempt: str) -> NotFound:
    return NotFound(f"There is no attempt {attempt[:200]!r} under way on this node.")
