"""What placement promises of every pool, whatever its nodes are and whatever is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.placement.nodes_made import Ledgers, nodes_of, row, rows, shape, shapes

from towline.core.entries import Node
from towline.core.placement.choosing.rules import Rules
from towline.core.placement.nodes import Nodes
from towline.core.placement.policies.headroom import Headroom
from towline.core.placement.shape import Shape
from towline.core.rows import NodeRow

steps = st.one_of(
    st.tuples(st.just("place"), st.integers(0, 5), st.integers(1, 6)),
    st.tuples(st.just("end"), st.integers(0, 100), st.just(0)),
    st.tuples(st.just("away"), st.integers(0, 9), st.integers(0, 1)),
    st.tuples(st.just("relabel"), st.integers(0, 9), st.integers(0, 2)),
    st.tuples(st.just("join"), st.integers(0, 9), st.just(0)),
)


def _named(rows_made: list[NodeRow]) -> list[NodeRow]:
    for at, made in enumerate(rows_made):
        made.name = f"n{at}"
        made.id = f"id-{at}"
    return rows_made


@settings(max_examples=60, deadline=None)
@given(
    st.lists(rows, min_size=1, max_size=6).map(_named),
    st.lists(shapes, min_size=1, max_size=5),
    st.lists(steps, max_size=14),
    st.sampled_from([Rules, lambda: Rules(policy=Headroom())]),
)
def test_what_fits_is_placed_legally_and_what_does_not_has_a_reason(
    made: list[NodeRow],
    asked: list[Shape],
    todo: list[tuple[str, int, int]],
    rules: Callable[[], Rules],
) -> None:
    ledgers = Ledgers(nodes_of(*made, rules=rules()))
    for kind, at, much in todo:
        _step(ledgers, asked, kind, at, much)
        ledgers.check()
        for each in asked:
            if each.spread is None:
                ledgers.check_room(each)


def _step(ledgers: Ledgers, asked: list[Shape], kind: str, at: int, much: int) -> None:
    nodes = ledgers.nodes
    if kind == "place":
        one = asked[at % len(asked)]
        room = sum(ledgers.fits(one, column) for column in range(nodes.n))
        assert ledgers.place(one, much) == min(much, room)
    elif kind == "end" and ledgers.held:
        ledgers.end(at)
    elif kind == "away":
        node = nodes.entries[at % nodes.n]
        node.connected = bool(much)
        nodes.refresh(node)
    elif kind == "relabel":
        node = nodes.entries[at % nodes.n]
        node.row.labels = [{}, {"zone": "a"}, {"ram": "64", "new": "b"}][much]
        nodes.refresh(node)
    elif kind == "join":
        joined = NodeRow(**_fields(nodes.entries[at % nodes.n].row), name=f"n{nodes.n}", id=f"id-{nodes.n}")
        nodes.add(Node(row=joined, column=nodes.n, connected=True, heard_at=0))


def _fields(made: NodeRow) -> dict[str, Any]:
    return {name: getattr(made, name) for name in made.__struct_fields__ if name not in ("name", "id")}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(rows, min_size=1, max_size=4).map(_named),
    st.lists(shapes, min_size=1, max_size=4),
    st.lists(st.integers(0, 3), max_size=12),
)
def test_a_takeover_finds_the_same_free(made: list[NodeRow], asked: list[Shape], order: list[int]) -> None:
    before = Ledgers(nodes_of(*made))
    for at in order:
        before.place(asked[at % len(asked)], 1)
    after = Ledgers(nodes_of(*made))
    for column, each, devices in before.held:
        after.nodes.hold(column, each, devices)
        after.held.append((column, each, devices))
    after.check()
    assert (after.nodes.free_amounts == before.nodes.free_amounts).all()
    assert (after.nodes.gpu_free_milli == before.nodes.gpu_free_milli).all()
    for each in asked:
        assert after.nodes.room(each) == before.nodes.room(each)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(1, 4)), min_size=1, max_size=6),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_a_spread_is_even_wherever_there_is_room(
    zones: list[tuple[str | None, int]], batches: list[int]
) -> None:
    made = _named([_zone_row(zone, cpus) for zone, cpus in zones])
    ledgers = Ledgers(nodes_of(*made))
    asked = shape(1000, 1, 1, spread="zone")
    for count in batches:
        for _ in range(count):
            _place_one_evenly(ledgers, asked)
    at_once = Ledgers(nodes_of(*made))
    at_once.place(asked, sum(batches))
    assert sorted(_by_zone(at_once).values()) == sorted(_by_zone(ledgers).values())


def _zone_row(zone: str | None, cpus: int) -> NodeRow:
    return row(cpu_milli=cpus * 1000, labels={} if zone is None else {"zone": zone})


def _place_one_evenly(ledgers: Ledgers, asked: Shape) -> None:
    before, nodes = _by_zone(ledgers), ledgers.nodes
    rooms: dict[str | None, int] = {}
    for column in range(nodes.n):
        zone = nodes.entries[column].row.labels.get("zone")
        rooms[zone] = rooms.get(zone, 0) + ledgers.fits(asked, column)
    open_zones = {zone: before.get(zone, 0) for zone, room in rooms.items() if room}
    assert ledgers.place(asked, 1) == bool(open_zones)
    if not open_zones:
        return
    after = _by_zone(ledgers)
    (chosen,) = [zone for zone in after if after[zone] != before.get(zone, 0)]
    named = {zone: count for zone, count in open_zones.items() if zone is not None}
    assert (chosen is not None) == bool(named)
    if named:
        assert before.get(chosen, 0) == min(named.values())


def _by_zone(ledgers: Ledgers) -> dict[str | None, int]:
    found: dict[str | None, int] = {}
    for column, _, _ in ledgers.held:
        zone = ledgers.nodes.entries[column].row.labels.get("zone")
        found[zone] = found.get(zone, 0) + 1
    return found


def test_adding_nodes_keeps_what_is_there() -> None:
    nodes = Nodes()
    asked = shape(cpu_milli=3000)
    for at in range(200):
        nodes.add(Node(row=row(f"n{at}"), column=at, connected=True, heard_at=0))
        nodes.take(at, asked, 1 + at % 2)
    assert nodes.room(asked) == [(at, 1) for at in range(0, 200, 2)]
    assert nodes.room(asked, 3) == [(0, 1), (2, 1), (4, 1)]
    assert nodes.room(asked, 50) == [(at, 1) for at in range(0, 100, 2)]
