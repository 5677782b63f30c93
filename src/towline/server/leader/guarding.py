"""An operator's own filters, scores and policies, so that their errors never stop the pool.

What fails or answers with something else than was asked for is told in the server's log and by
``tow doctor``, with the plugin's name, and the pass goes on: a filter that failed for a node rejects
that node (what it forbids must not start because of a bug), a score that failed counts nothing, an
order falls back to that of submission. A score or policy that is slow again and again is set aside; a
filter that is slow is told of only. A call that never comes back cannot be helped: it is the
leader's own thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import structlog

from towline.core.placement.columns import Column, Mask, NodeColumns
from towline.core.placement.shape import Shape
from towline.core.queues.policies.order import Item, OrderKey

SLOW_S = 0.25
SLOW_CALLS = 3
"""After so many slow calls a score or a policy is set aside until the server starts anew."""

MOST_CALLS = 64
"""Of a filter that fails, to find the nodes that it fails for."""

T = TypeVar("T")


class Faults:
    """What plugins have done wrong since the server started: for each its latest fault, and how many."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, int]] = {}
        self._log = structlog.get_logger("plugins")

    def note(self, plugin: str, what: str) -> None:
        before, count = self._told.get(plugin, ("", 0))
        self._told[plugin] = what, count + 1
        # A plugin that fails for every node fails thousands of times a second.
        if what != before or count & (count + 1) == 0:
            self._log.error("a placement plugin failed", plugin=plugin, what=what, times=count + 1)

    def problems(self) -> list[str]:
        """A sentence for each plugin, with the remedy."""
        remedy = "correct it, or take it out of the server's settings, and start the server anew"
        return [
            f"the placement plugin {plugin!r} failed {count} times, most lately: {what}: {remedy}"
            for plugin, (what, count) in self._told.items()
        ]


FAULTS = Faults()
"""Of this process."""


class Guard:
    """Calls into one plugin."""

    def __init__(self, plugin: Any, faults: Faults = FAULTS) -> None:
        self.plugin = plugin
        self.name = str(plugin.name)
        self.failed = self.aside = False
        self._faults = faults
        self._slow = 0

    def call(self, work: Callable[[], T], instead: T) -> T:
        """What ``work`` gives; ``instead`` where it raises."""
        begin = perf_counter()
        try:
            return work()
        except Exception as error:
            self.failed = True
            self._faults.note(self.name, fault_text(error))
            return instead
        finally:
            took_s = perf_counter() - begin
            if took_s > SLOW_S:
                self._slow += 1
                self._faults.note(self.name, f"one call took {took_s:.1f} s")

    @property
    def slow(self) -> bool:
        """Whether it was slow too often; says so once."""
        if not self.aside and self._slow >= SLOW_CALLS:
            self.aside = True
            self._faults.note(self.name, "it was slow too often and is set aside")
        return self.aside


class GuardedFilter(Guard):
    """A ``UserFilter``."""

    def mask(self, view: NodeColumns, ask: Shape, columns: Column) -> Mask:
        """Where the plugin fails for some nodes, the others are asked about without them."""
        passed = np.zeros(len(columns), dtype=np.bool_)
        parts, calls = [(0, len(columns))], 0
        while parts and calls < MOST_CALLS:
            lo, hi = parts.pop()
            calls += 1
            found = self.call(partial(self._mask, view, ask, columns[lo:hi]), None)
            if found is not None:
                passed[lo:hi] = found
            elif hi - lo > 1:
                middle = (lo + hi) // 2
                parts += [(middle, hi), (lo, middle)]
        return passed

    def reason(self, view: NodeColumns, ask: Shape, column: int) -> str:
        try:
            if self.failed and self._mask(view, ask, np.array([column], dtype=np.int64))[0]:
                return f"the filter {self.name} failed for too many nodes"
            return str(self.plugin.reason(view, ask, column))
        except Exception as error:
            return f"the filter {self.name} failed: {fault_text(error)}"

    def _mask(self, view: NodeColumns, ask: Shape, columns: Column) -> Mask:
        found = np.asarray(self.plugin.mask(view, ask, columns))
        return checked(found, np.bool_, len(columns), "mask", "booleans")


class GuardedScore(Guard):
    """A ``UserScore`` or a ``Policy``; the latter's own attributes are handed through."""

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        nothing = np.zeros(len(columns), dtype=np.int64)
        return nothing if self.slow else self.call(lambda: self._scores(view, ask, columns), nothing)

    def _scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column:
        found = np.asarray(self.plugin.scores(view, ask, columns))
        return checked(found, np.integer, len(columns), "scores", "integers").astype(np.int64)


class GuardedPolicy(GuardedScore):
    """A ``Policy`` that learns or not, and chooses devices or not."""

    def __init__(self, plugin: Any, faults: Faults = FAULTS) -> None:
        super().__init__(plugin, faults)
        self.moving = bool(getattr(plugin, "moving", False))

    def observe(self, ask: Shape, count: int) -> None:
        if hasattr(self.plugin, "observe"):
            self.call(lambda: self.plugin.observe(ask, count), None)

    def device(self, view: NodeColumns, ask: Shape, column: int) -> int:
        """−1: it has no wish."""
        if self.slow or not hasattr(self.plugin, "device"):
            return -1
        return self.call(lambda: int(self.plugin.device(view, ask, column)), -1)


class GuardedOrder(Guard):
    """An ``Order``. One that failed for an element puts it where the earliest keys are."""

    def __init__(self, plugin: Any, faults: Faults = FAULTS) -> None:
        super().__init__(plugin, faults)
        self.learns = bool(plugin.learns)
        self._length = 1

    def key(self, now_ms: int, item: Item) -> OrderKey:
        return self.call(lambda: self._checked(self.plugin.key(now_ms, item)), (0,) * self._length)

    def _checked(self, key: Any) -> OrderKey:
        if not isinstance(key, tuple) or not all(isinstance(part, int) for part in key):  # pyright: ignore[reportUnknownVariableType]
            raise TypeError(f"key gave {key!r}, a tuple of integers is wanted")
        self._length = len(key)  # pyright: ignore[reportUnknownArgumentType]
        return key  # pyright: ignore[reportUnknownVariableType]


class GuardedBackfillOrder(GuardedOrder):
    """An order with another one behind the reservation."""

    def backfill_key(self, now_ms: int, item: Item) -> OrderKey:
        return self.call(lambda: self._checked(self.plugin.backfill_key(now_ms, item)), (0,) * self._length)


def guarded_order(plugin: Any) -> GuardedOrder:
    kind = GuardedBackfillOrder if hasattr(plugin, "backfill_key") else GuardedOrder
    return kind(plugin)


def checked(found: Any, kind: type[np.generic], size: int, method: str, wanted: str) -> Any:
    """The answer of a plugin. Raises TypeError for what is no array of this kind and length."""
    if not np.issubdtype(found.dtype, kind):
        raise TypeError(f"{method} gave {found.dtype} values, {wanted} are wanted")
    if found.shape != (size,):
        raise TypeError(f"{method} gave an answer of shape {found.shape}, ({size},) is wanted")
    return found


def fault_text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
