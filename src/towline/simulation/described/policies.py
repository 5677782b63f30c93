"""The policies to compare, as a file names them, or as names of the command line.

policies:
  today: {}
  shares:
    order: easy
    placement: best-fit
    usage_half_life: 12h
    queues:
      research: {weight: 3, guaranteed: {cpu: 64}}
      night: {weight: 1, max: {gpu: 8}, max_active: 100}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Struct

from towline.core.commands import SetQueue
from towline.core.placement.choosing.rules import Rules
from towline.core.placement.policies.headroom import Headroom
from towline.core.queues.policies.slowdown import Slowdown
from towline.core.queues.usage import HALF_LIFE_MS
from towline.errors import InvalidDocument, OperatorError, Problem
from towline.model.document.lines import Where
from towline.model.document.reading import Reading
from towline.model.job import ByteCount, CpuMilli, Milliseconds
from towline.model.names import closest
from towline.model.units import Quantity, parse_cpu, show_cpu
from towline.server.leader.rules import (
    ORDER_GROUP,
    ORDERS,
    PLACEMENT_GROUP,
    POLICIES,
    order_maker,
    placement_maker,
    plugins_maker,
)
from towline.simulation.described.reading import read_described
from towline.simulation.traces.policies import PUBLISHED_PLACEMENTS, Shapes

OWN = Slowdown.name
_EXAMPLE = "policies: {today: {}, easy: {order: easy}}"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,62}\Z")
_GpuMilli = Annotated[int, Quantity("_milli", parse_cpu, show_cpu, "2")]


class AmountsSpec(Struct, frozen=True, kw_only=True):
    cpu_milli: CpuMilli | None = None
    memory_bytes: ByteCount | None = None
    gpu_milli: _GpuMilli | None = None
    pids: int | None = None

    def by_name(self) -> dict[str, int | None]:
        """As a queue's row names them; what is not given is left out."""
        given = {"cpu": self.cpu_milli, "memory": self.memory_bytes, "gpu": self.gpu_milli, "pids": self.pids}
        return {name: amount for name, amount in given.items() if amount is not None}


class QueueSpec(Struct, frozen=True, kw_only=True):
    """A queue, as ``tow queue create`` takes it."""

    parent: str | None = None
    weight: float = 1.0
    guaranteed: AmountsSpec = AmountsSpec()
    max: AmountsSpec = AmountsSpec()
    max_priority: int = 100
    max_active: int | None = None


class PolicySpec(Struct, frozen=True, kw_only=True):
    """``order`` and ``placement`` are names, of Towline's or of entry points; ``plugins`` as in the
    server's setting ``placement_plugins``. ``queues`` are set over those of the trace."""

    order: str = OWN
    placement: str = "headroom"
    plugins: tuple[str, ...] = ()
    usage_half_life_ms: Milliseconds = HALF_LIFE_MS
    queues: dict[str, QueueSpec] = {}


class PoliciesSpec(Struct, frozen=True, kw_only=True):
    policies: dict[str, PolicySpec]


class Setup(NamedTuple):
    """One policy of a comparison. ``queues`` stand in an order in which parents are first."""

    name: str
    order: str = OWN
    placement: str = Headroom.name
    plugins: str = ""
    queues: tuple[SetQueue, ...] = ()
    half_life_ms: int = HALF_LIFE_MS

    def rules(self, shapes: Shapes) -> Rules:
        """What decides in one pool, as in production; published policies place all elements everywhere.
        ``shapes``: what will come (for FGD, which is told)."""
        made = PUBLISHED_PLACEMENTS.get(self.placement)
        policy = placement_maker(self.placement)() if made is None else made(shapes)
        filters, scores = plugins_maker(self.plugins)()
        order = order_maker(self.order)()
        return Rules(policy, None if made is None else policy, filters, scores, order)


# --- by names -----------------------------------------------------------------------------------------
def named(names: Iterable[str], *, orders: bool = True) -> list[Setup]:
    """One for each name, of an order or a placement policy; the rest of each is as in production.
    ``orders``: whether orders matter. Raises InvalidDocument for names that are neither."""
    found: list[Setup] = []
    problems: list[Problem] = []
    known = {"order": order_names() if orders else [], "placement": placement_names()}
    for name in dict.fromkeys(names):
        field = next((field for field, names in known.items() if name in names), None)
        if field is None:
            listed = [each for names in known.values() for each in names]
            problems.append(Problem("--policy", *_unknown(name, listed)))
        else:
            found.append(Setup(name, order=name) if field == "order" else Setup(name, placement=name))
    if problems:
        raise InvalidDocument(problems)
    return found


def _unknown(name: str, known: Sequence[str]) -> tuple[str, str]:
    near = closest(name, known)
    listed = f"there are {', '.join(known)}"
    return f"there is no policy {name!r}", listed if near is None else f"did you mean {near!r}? {listed}"


def order_names() -> list[str]:
    return [*ORDERS, *sorted(entry_points(group=ORDER_GROUP).names)]


def placement_names() -> list[str]:
    own = [*POLICIES, *PUBLISHED_PLACEMENTS]
    return [*own, *sorted(entry_points(group=PLACEMENT_GROUP).names)]


# --- from a file --------------------------------------------------------------------------------------
def read_policies(path: Path) -> list[Setup]:
    """Raises InvalidDocument with all problems and their lines."""
    described = read_described(path, PoliciesSpec, _check, _EXAMPLE)
    return [_setup(name, fields) for name, fields in described.policies.items()]


def _setup(name: str, fields: PolicySpec) -> Setup:
    order = parents_first({each: given.parent for each, given in fields.queues.items()})
    queues = tuple(_queue(each, fields.queues[each]) for each in order)
    plugins = ",".join(fields.plugins)
    return Setup(name, fields.order, fields.placement, plugins, queues, fields.usage_half_life_ms)


def _queue(name: str, fields: QueueSpec) -> SetQueue:
    return SetQueue(
        name=name,
        parent=fields.parent,
        weight_milli=round(fields.weight * 1000),
        guaranteed=fields.guaranteed.by_name(),
        maximum=fields.max.by_name(),
        max_priority=fields.max_priority,
        max_active=fields.max_active,
    )


def parents_first(parents: Mapping[str, str | None]) -> list[str]:
    """Names of queues in an order in which each one's parent, where it is among them, is before it."""
    ordered: dict[str, None] = {}

    def put(name: str, below: tuple[str, ...]) -> None:
        parent = parents[name]
        if parent is not None and parent in parents and parent not in below:
            put(parent, (*below, name))
        ordered.setdefault(name)

    for name in parents:
        put(name, ())
    return list(ordered)


def _check(reading: Reading, described: PoliciesSpec) -> None:
    top = Where(None, "policies")
    if not described.policies and not reading.failed("policies"):
        reading.bad(top, "names no policy", f"write {_EXAMPLE}")
    for name, fields in described.policies.items():
        where = Where(top, name)
        if not _NAME.match(name):
            reading.bad(where, f"{name!r} is no name", "write up to 63 letters, digits, spaces or . _ + -")
        for field, known in (("order", order_names()), ("placement", placement_names())):
            given = getattr(fields, field)
            if given not in known:
                reading.bad(Where(where, field), *_unknown(given, known))
        if not reading.failed("policies", name):
            _check_loading(reading, where, fields)
        for queue, its in fields.queues.items():
            if not 0.001 <= its.weight <= 1_000_000:
                place = Where(Where(Where(where, "queues"), queue), "weight")
                reading.bad(place, f"is {its.weight:g}", "write 0.001 to 1000000")


def _check_loading(reading: Reading, where: Where, fields: PolicySpec) -> None:
    """Entry points are loaded now, not in the middle of a comparison."""
    try:
        _setup("", fields).rules([])
    except OperatorError as error:
        reading.bad(where, str(error))
