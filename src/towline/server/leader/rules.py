"""What a pool decides by, from the settings: policies by name, and an operator's own filters and scores.

Plugins are objects behind entry points of the groups ``towline.placement`` and ``towline.order``
(docs/guides/placement-plugins.md); only those that the settings name are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import entry_points
from typing import Any

from towline.core.placement.choosing.rules import Rules, UserScore
from towline.core.placement.choosing.scores import BestFit, Policy
from towline.core.placement.filters.filter import UserFilter
from towline.core.placement.policies.headroom import Headroom
from towline.core.queues.policies.easy import Easy
from towline.core.queues.policies.easy_sjf import EasySjf
from towline.core.queues.policies.order import Order
from towline.core.queues.policies.sjf import Sjf
from towline.core.queues.policies.slowdown import Slowdown
from towline.core.queues.policies.unicef import Unicef
from towline.core.queues.policies.wfp3 import Wfp3
from towline.core.queues.usage import HALF_LIFE_MS
from towline.errors import WrongSetting
from towline.server.leader.guarding import GuardedFilter, GuardedPolicy, GuardedScore, guarded_order

PLACEMENT_GROUP, ORDER_GROUP = "towline.placement", "towline.order"
POLICIES: dict[str, Callable[[], Policy]] = {"headroom": Headroom, "best-fit": BestFit}
ORDERS: dict[str, Callable[[], Order]] = {
    each.name: each for each in (Slowdown, Easy, EasySjf, Wfp3, Unicef, Sjf)
}
"""Towline's own first."""


def rules_maker(
    policy: str, plugins: str, order: str = Slowdown.name, half_life_ms: int = HALF_LIFE_MS
) -> Callable[[], Rules]:
    """Makes the rules of one pool each time it is loaded: a policy may have a memory.

    ``policy`` is one of ``POLICIES``, ``order`` one of ``ORDERS``, each or the name of an entry point;
    ``plugins`` are names of entry points, parted by commas; ``half_life_ms`` is that of usage. Raises
    WrongSetting with the setting that is wrong.
    """
    make_policy, make_order = placement_maker(policy), order_maker(order)
    return partial(
        _rules,
        make_policy if policy in POLICIES else lambda: GuardedPolicy(make_policy()),
        make_order if order in ORDERS else lambda: guarded_order(make_order()),
        plugins_maker(plugins),
        half_life_ms,
    )


def placement_maker(name: str, setting: str = "placement_policy") -> Callable[[], Policy]:
    """Raises WrongSetting for a name that is none."""
    return POLICIES.get(name) or _load(PLACEMENT_GROUP, setting, name, POLICIES, ["scores"])


def order_maker(name: str, setting: str = "order_policy") -> Callable[[], Order]:
    """Raises WrongSetting for a name that is none."""
    return ORDERS.get(name) or _load(ORDER_GROUP, setting, name, ORDERS, ["key"])


Plugins = tuple[tuple[UserFilter, ...], tuple[UserScore, ...]]


def plugins_maker(names: str, setting: str = "placement_plugins") -> Callable[[], Plugins]:
    """Makes the filters and scores of these names, parted by commas. Raises WrongSetting."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    return partial(
        _plugins, [_load(PLACEMENT_GROUP, setting, name, {}, ["mask", "scores"]) for name in wanted]
    )


def _plugins(makers: Sequence[Callable[[], Any]]) -> Plugins:
    made = [make() for make in makers]
    filters = tuple(each for each in made if hasattr(each, "mask"))
    return filters, tuple(each for each in made if not hasattr(each, "mask"))


def _rules(
    policy: Callable[[], Policy],
    order: Callable[[], Order],
    plugins: Callable[[], Plugins],
    half_life_ms: int,
) -> Rules:
    filters, scores = plugins()
    return Rules(
        policy=policy(),
        filters=tuple(map(GuardedFilter, filters)),
        scores=tuple(map(GuardedScore, scores)),
        order=order(),
        half_life_ms=half_life_ms,
    )


def _load(
    group: str, setting: str, name: str, own: Mapping[str, object], methods: Sequence[str]
) -> Callable[[], Any]:
    """What stands behind an entry point: a class, or a function that makes the object."""
    there = entry_points(group=group)
    if name not in there.names:
        known = [*own, *sorted(there.names)]
        raise WrongSetting(
            f"{setting} names {name!r}, and there is no such entry point in the group {group}: "
            f"known are {', '.join(known) or 'none'}"
        )
    try:
        make = there[name].load()
        made = make()
    except Exception as error:
        raise WrongSetting(f"{setting}: the plugin {name!r} cannot be loaded: {error!r}") from error
    needed = ("name", "learns") if group == ORDER_GROUP else ("name",)
    lacking = [each for each in needed if not hasattr(made, each)]
    if lacking or not any(callable(getattr(made, method, None)) for method in methods):
        raise WrongSetting(
            f"{setting}: what {name!r} makes has to have a {' and a '.join(needed)} and a method "
            f"{' or '.join(methods)}"
        )
    return make
