"""With true lengths no reservation is delayed by what starts before it, by device and in any pool."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.core.driver import empty
from tests.unit.core.placement.nodes_made import gpus
from tests.unit.core.queues.fleet import Fleet, machine

from towline.core import invariants
from towline.core.commands import NodeUp
from towline.core.placement.choosing.rules import Rules
from towline.core.placement.columns import Column, Mask, NodeColumns
from towline.core.placement.shape import Shape
from towline.core.pool import Pool
from towline.core.pool.scheduling import reserving
from towline.core.rows import NodeRow
from towline.model.job import Array, Gpu, Resources, TaskSpec

ONE_S = 1000
Asked = tuple[int, Gpu | None]
"""CPUs and devices."""
Work = tuple[Asked, int, int]
"""What an element asks for, how long it runs in seconds, how many of them."""


def timed(asked: Asked, length_s: int, size: int = 1) -> TaskSpec:
    cpu, gpu = asked
    resources = Resources(cpu_milli=cpu * 1000, memory_bytes=2**20, pids=1, gpu=gpu)
    array = Array(first=0, last=size - 1)
    return TaskSpec(
        runtime="process", command=("x",), resources=resources, array=array, expect_ms=length_s * ONE_S
    )


class Timed(Fleet):
    """Elements run exactly as long as their tasks say."""

    def __init__(self, nodes: list[tuple[int, list[str]]]) -> None:
        rows = [_machine(at, cpus, models) for at, (cpus, models) in enumerate(nodes)]
        super().__init__(rows, lambda job, index: self.pool.state.jobs[job].spec.tasks["t"].expect_ms or 1)

    def promise(self, job: str) -> int | None:
        """When the first element of a job is to start by its reservation."""
        found = self.pool.state.jobs.get(job)
        held = found and reserving.Reserving(self.pool.state).expect(found.tasks[0])
        return None if held is None else held[1]


def _machine(at: int, cpus: int, models: list[str]) -> NodeRow:
    row = machine(f"n{at:02}", cpu=cpus)
    row.gpus = gpus(*models)
    return row


shares = st.builds(Gpu, count=st.just(1), milli=st.sampled_from([250, 500, 700]), model=st.just(()))
modelled = st.sampled_from([(), ("A100",), ("T4",)])
wholes = st.builds(Gpu, count=st.integers(1, 4), milli=st.just(1000), model=modelled)
slices = st.builds(Gpu, count=st.integers(1, 2), milli=st.just(1000), slice=st.just("1g.5gb"))
asked = st.tuples(st.integers(1, 4), st.one_of(st.none(), shares, wholes, slices))
works = st.tuples(asked, st.integers(1, 12), st.integers(1, 4))
models = st.lists(st.sampled_from(["A100", "A100", "T4", "A100:1g.5gb"]), max_size=5)
pools = st.lists(st.tuples(st.integers(4, 12), models), min_size=1, max_size=4)
WHOLE = Gpu(count=1, milli=1000)
TWO = Gpu(count=2, milli=1000)
FOUR = Gpu(count=4, milli=1000)
SHARE = Gpu(count=1, milli=250)


@settings(max_examples=150, deadline=None)
@given(pools, st.lists(works, max_size=6), asked, st.lists(st.tuples(st.integers(0, 4), works), max_size=12))
@example(
    # Four devices in all become free on each node, but on one of them never four whole ones.
    [(8, ["A100"] * 4), (8, ["A100"] * 4)],
    [((1, WHOLE), 5, 4), ((1, SHARE), 9, 3), ((1, WHOLE), 2, 3)],
    (1, FOUR),
    [(0, ((1, SHARE), 12, 3)), (1, ((1, WHOLE), 12, 2))],
)
@example([(8, ["T4"] * 4)], [((1, WHOLE), 5, 2)], (1, FOUR), [(1, ((1, WHOLE), 12, 2))])
@example(
    [(8, ["T4"] * 2)], [((1, SHARE), 5, 1)], (1, TWO), [(0, ((1, SHARE), 5, 5)), (1, ((1, SHARE), 4, 9))]
)
def test_what_is_behind_never_delays_a_reservation(
    nodes: list[tuple[int, list[str]]], running: list[Work], head: Asked, behind: list[tuple[int, Work]]
) -> None:
    fleet = Timed(nodes)
    for at, (what, length_s, size) in enumerate(running):
        fleet.submit(f"r{at}", timed(what, length_s, size))
    fleet.submit("head", timed(head, 3), priority=90)
    promised = _kept(fleet, None)
    for at, (after_s, (what, length_s, size)) in enumerate(behind):
        for _ in range(after_s):
            fleet.run_until(fleet.now_ms + ONE_S)
            promised = _kept(fleet, promised)
        fleet.submit(f"b{at}", timed(what, length_s, size))
        promised = _kept(fleet, promised)
    invariants.check(fleet.pool.state)
    if promised is not None:
        fleet.run_until(promised)
        assert fleet.started[("head", 0)] <= promised


def _kept(fleet: Timed, promised: int | None) -> int | None:
    """The promise now, which may only have become an earlier one."""
    if ("head", 0) in fleet.started:
        assert promised is None or fleet.started[("head", 0)] <= promised
        return promised
    now = fleet.promise("head")
    misfits = fleet.pool.state.columns.misfits(fleet.pool.state.jobs["head"].tasks[0].shape)
    assert (now is not None) == any(not misfit.permanent for misfit in misfits)
    if promised is not None:
        assert now is not None
        assert now <= promised
    return now


def test_a_reservation_stays_when_other_nodes_come_nearer() -> None:
    """More nodes than are looked at lack less for it in the end, and have no room before it."""
    fleet = Timed([(8, [])] * (reserving.NODES + 2))
    begin = fleet.now_ms
    fleet.submit("first", timed((6, None), 10))
    fleet.submit("there", timed((5, None), 100, size=reserving.NODES + 1))
    fleet.submit("beside", timed((3, None), 4, size=reserving.NODES + 1))
    fleet.run_until(begin + 2 * ONE_S)
    fleet.submit("head", timed((8, None), 1), priority=90)
    assert fleet.promise("head") == begin + 10 * ONE_S
    fleet.submit("asks", timed((2, None), 1))  # a pass with somebody behind
    fleet.run_until(begin + 6 * ONE_S)
    fleet.submit("long", timed((2, None), 100))
    fleet.run_until(begin + 20 * ONE_S)
    assert fleet.started[("head", 0)] == begin + 10 * ONE_S


def test_what_comes_first_in_a_shape_that_fits_nowhere_is_not_passed() -> None:
    fleet = Timed([(4, [])])
    begin = fleet.now_ms
    fleet.submit("r", timed((3, None), 10))
    fleet.submit("low", timed((4, None), 5), priority=40)
    fleet.submit("head", timed((4, None), 5), priority=90)
    fleet.submit("long", timed((1, None), 60), priority=60)
    fleet.run_until(begin + 20 * ONE_S)
    assert fleet.started[("head", 0)] == begin + 10 * ONE_S


class Second:
    """A user's filter: what asks for much may go to the second node only."""

    name = "second"

    def mask(self, view: NodeColumns, ask: Shape, columns: Column) -> Mask:
        return (columns == 1) | (ask.cpu_milli < 4000)

    def reason(self, view: NodeColumns, ask: Shape, column: int) -> str:
        return "large ones go to the second node"


def test_a_reservation_is_where_a_users_filter_lets_it() -> None:
    fleet = Timed([])
    fleet.pool = Pool.load(empty(), fleet.now_ms, Rules(filters=(Second(),)))
    fleet.step(*(NodeUp(node=_machine(at, 4, [])) for at in range(2)))
    begin = fleet.now_ms
    fleet.submit("first", timed((3, None), 5))
    fleet.submit("second", timed((3, None), 10))
    fleet.submit("head", timed((4, None), 1), priority=90)
    assert fleet.promise("head") == begin + 10 * ONE_S
    fleet.submit("long", timed((1, None), 60, 2))
    fleet.run_until(begin + 20 * ONE_S)
    assert fleet.started[("head", 0)] == begin + 10 * ONE_S
