"""What a pool decides by: its policies, and the filters and scores that its operator has added.

Built once, in ``launch``, and handed to the pool; the core itself loads nothing.
"""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import numpy as np

from towline.core.placement.choosing.scores import BestFit, Policy
from towline.core.placement.columns import Column, NodeColumns
from towline.core.placement.filters.filter import Filter, UserFilter, user_filter
from towline.core.placement.filters.misfits import FILTERS
from towline.core.placement.filters.resources import FREE
from towline.core.placement.shape import Shape
from towline.core.queues.policies.order import Order
from towline.core.queues.policies.slowdown import Slowdown
from towline.core.queues.usage import HALF_LIFE_MS


class UserScore(Protocol):
    """A score of a user's own. Added to the weights of ``prefer``: 1 counts as much as a wish of weight 1.

    As with a policy, it may depend on its own column and ``ask`` only.
    """

    name: str

    def scores(self, view: NodeColumns, ask: Shape, columns: Column) -> Column: ...


class ChoosesDevice(Protocol):
    """A policy that also says which device of a node a share is taken from."""

    def device(self, view: NodeColumns, ask: Shape, column: int) -> int:
        """The place of a device in ``view.gpu_free_milli[column]`` that has room for it."""
        ...


@runtime_checkable
class Observes(Protocol):
    """A policy that learns from what is asked for."""

    def observe(self, ask: Shape, count: int) -> None: ...


class Rules:
    """``policy`` scores nodes with GPUs, whatever an element asks for; ``plain`` nodes without (None: best
    fit, both). ``order``: the order inside its queues (None: Towline's own).

    What asks for no GPU keeps off nodes with GPUs as long as others have room, so that scores of the two
    are never compared. ``half_life_ms``: how long until what a namespace has used counts half.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        plain: Policy | None = None,
        filters: tuple[UserFilter, ...] = (),
        scores: tuple[UserScore, ...] = (),
        order: Order | None = None,
        half_life_ms: int = HALF_LIFE_MS,
    ) -> None:
        self.half_life_ms = half_life_ms
        self.order: Order = order or Slowdown()
        self.policy: Policy = policy or BestFit()
        self.plain: Policy = plain or BestFit()
        self.filters: tuple[Filter, ...] = (*FILTERS, *map(user_filter, filters))
        self.scores = scores
        self.static = tuple(each for each in self.filters if each.static)
        self.further = tuple(each for each in self.filters if not each.static and each not in FREE)
        """Those on what changes with the load, without those on amounts (``resources.have_room``)."""
        self.policy_moves, self.plain_moves = _moves(self.policy), _moves(self.plain)
        fitting = isinstance(self.plain, BestFit) and (isinstance(self.policy, BestFit) or self.policy_moves)
        self.quick = fitting and not filters and not scores
        """What asks for no GPU can be judged without arrays, where it is one node only."""
        policies = dict.fromkeys((self.policy, self.plain))
        self._observers = [policy for policy in policies if isinstance(policy, Observes)]
        self._device = cast("ChoosesDevice | None", self.policy if hasattr(self.policy, "device") else None)

    def moving(self, shape: Shape) -> bool:
        """Whether some scores of a shape hold only until the next placement."""
        return self.policy_moves or (self.plain_moves and shape.gpu is None)

    def scores_of(self, nodes: NodeColumns, shape: Shape, columns: Column, *, moving: bool) -> Column | int:
        """What the policies say of these columns: those whose scores move, or the others; 0 for the rest."""
        if shape.gpu is not None or self.policy is self.plain:
            return _scores(self.policy, nodes, shape, columns) if self.policy_moves is moving else 0
        found, with_gpus = np.zeros_like(columns), nodes.device_kinds.codes[columns] != 0
        for policy, moves, mine in (
            (self.policy, self.policy_moves, with_gpus),
            (self.plain, self.plain_moves, ~with_gpus),
        ):
            if moves is moving and mine.any():
                found[mine] = _scores(policy, nodes, shape, columns[mine])
        return found

    def observe(self, shape: Shape, count: int) -> None:
        """So many elements of this shape have been queued."""
        for policy in self._observers:
            policy.observe(shape, count)

    def user_scores(self, nodes: NodeColumns, shape: Shape, columns: Column) -> Column | int:
        if not self.scores:
            return 0
        return sum(
            (np.asarray(each.scores(nodes, shape, columns), dtype=np.int64) for each in self.scores),
            start=np.zeros(len(columns), dtype=np.int64),
        )

    def device_for(self, nodes: NodeColumns, shape: Shape, column: int) -> int | None:
        """The device that the policy wants a share to be taken from; None: it has no wish."""
        if self._device is None or not shape.shares:
            return None
        return int(self._device.device(nodes, shape, column))


def _moves(policy: Policy) -> bool:
    return bool(getattr(policy, "moving", False))


def _scores(policy: Policy, nodes: NodeColumns, shape: Shape, columns: Column) -> Column:
    return np.asarray(policy.scores(nodes, shape, columns), dtype=np.int64)
