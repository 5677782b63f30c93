"""The headroom policy by its definition: every node, every kind, one after another, nothing remembered."""

from __future__ import annotations

import math

from towline.core.placement.filters.conditions import kind_serves
from towline.core.placement.kinds import DEVICES_PART, UNIT, Amounts
from towline.core.placement.nodes import Nodes
from towline.core.placement.policies import headroom
from towline.core.placement.policies.headroom import Headroom
from towline.core.placement.shape import Shape

_PRICE, _MAX_PRICE, _MOST_TAKEN = 2.0**32, 2.0**28, 2**15 - 1
_WHOLE = 1000


class Left:
    """What one node has free; ``kind``: that of its first device, −1 without."""

    def __init__(self, nodes: Nodes, column: int) -> None:
        self.cpu_milli = int(nodes.free_cpu_milli[column])
        self.memory_bytes = int(nodes.free_memory_bytes[column])
        self.free = [max(0, milli) for milli in nodes.gpu_free_milli[column].tolist()]
        self.kind = int(nodes.device_kind[column, 0])
        self.level = 0

    def take(self, asked: Shape) -> None:
        """Let it hold one element. ``level`` is then what the device of a share had free."""
        self.cpu_milli -= asked.cpu_milli
        self.memory_bytes -= asked.memory_bytes
        if asked.shares:
            self.level = min(milli for milli in self.free if milli >= asked.gpu_milli)
            self.free[self.free.index(self.level)] -= asked.gpu_milli
        elif asked.whole:
            for _ in range(asked.gpu_count):
                self.free[self.free.index(_WHOLE)] = 0

    def usable(self, nodes: Nodes, kind: Amounts) -> int:
        """64ths of elements of a kind that it could take."""
        if self.kind < 0 or (kind.shape is not None and not kind_serves(kind.shape, nodes.kinds[self.kind])):
            return 0
        devices = sum(milli // kind.gpu_milli for milli in self.free)
        fits = math.floor(
            min(
                devices / kind.gpu_count,
                self.cpu_milli / max(kind.cpu_milli, 1),
                self.memory_bytes / max(kind.memory_bytes, 1),
            )
        )
        if fits <= 0:
            return 0
        each = kind.gpu_milli * kind.gpu_count
        amount = sum(round(milli * DEVICES_PART / each) for milli in self.free if milli >= kind.gpu_milli)
        return amount + fits * (UNIT - DEVICES_PART)


def headroom_of(nodes: Nodes, policy: Headroom) -> list[int]:
    """By kind, over all nodes."""
    every = [Left(nodes, column) for column in range(nodes.n)]
    return [sum(left.usable(nodes, kind) for left in every) for kind in policy._kinds.all]


def prices(nodes: Nodes, policy: Headroom) -> list[int]:
    found: list[int] = []
    free = sum(sum(Left(nodes, column).free) for column in range(nodes.n))
    coming = free / max(policy.profile.gpu_milli, 1)
    for at, usable in enumerate(headroom_of(nodes, policy)):
        seen = policy._adopted[at]
        count = (headroom.SORT_COUNT if seen is None else seen.count) + float(policy._folded[at])
        room = max(usable / UNIT - headroom.RESERVE, headroom.LEAST_HEADROOM)
        price = float(policy._weights[at]) * count / room * (_PRICE / max(policy.profile.total, 1))
        beyond = count * coming / room - headroom.SCARCE_FROM
        price *= 1 + headroom.SCARCE * min(max(beyond, 0), headroom.SCARCE_MOST)
        found.append(round(min(price, _MAX_PRICE)))
    return found


def scores(nodes: Nodes, policy: Headroom, asked: Shape, columns: list[int]) -> list[int]:
    """What ``policy.scores`` has to say of these nodes, each of which has room."""
    per_kind = prices(nodes, policy)
    found: list[int] = []
    for column in columns:
        before, after = Left(nodes, column), Left(nodes, column)
        after.take(asked)
        cost = 0
        for price, kind in zip(per_kind, policy._kinds.all, strict=True):
            takes = before.usable(nodes, kind) - after.usable(nodes, kind)
            cost += price * min(takes, _MOST_TAKEN)
        if asked.shares:
            costs = policy._device_costs
            cost += int(costs[after.level - asked.gpu_milli]) - int(costs[after.level])
        found.append(-cost)
    return found
