"""What a pool promises of every history: nothing is oversubscribed, and what waits has a reason."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.core.queues.test_reservations import ONE_S, Timed, asked, pools, timed

from towline.core import invariants
from towline.core.commands import Cancel, SetQueue
from towline.core.placement.checking import oversubscribed
from towline.core.pool import Pool
from towline.core.queues.tree import DEFAULT
from towline.model.job import Gpu, Limit

QUEUES = (DEFAULT, "a", "b", "c", "d", "e")
submissions = st.tuples(
    st.sampled_from(QUEUES),
    asked,
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from([30, 50, 90]),
    st.sampled_from([None, Limit(key="x", max=1), Limit(key="y", max=2)]),
)
steps = st.lists(st.one_of(submissions, st.integers(1, 5), st.just("cancel")), min_size=1, max_size=16)
bounds = st.lists(
    st.tuples(
        st.sampled_from(QUEUES[1:]),
        st.dictionaries(st.sampled_from(["cpu", "gpu"]), st.integers(0, 9).map(lambda n: n * 500)),
        st.one_of(st.none(), st.integers(0, 4)),
    ),
    max_size=4,
)


def share(milli: int) -> tuple[str, object, int, int, int, Limit | None]:
    return DEFAULT, (1, Gpu(count=1, milli=milli)), 5, 1, 50, None


@settings(max_examples=80, deadline=None)
@given(pools, bounds, steps)
@example([(4, ["T4", "T4"])], [], [share(700), share(500)])
def test_nothing_is_oversubscribed_and_what_waits_has_a_reason(
    nodes: list[tuple[int, list[str]]],
    bounded: list[tuple[str, dict[str, int], int | None]],
    history: list[tuple[str, object, int, int, int, Limit | None] | int | str],
) -> None:
    fleet = Timed(nodes)
    for name in QUEUES[1:]:
        fleet.step(SetQueue(name=name))
    for name, maximum, max_active in bounded:
        fleet.step(SetQueue(name=name, maximum={**maximum}, max_active=max_active))
    for at, step in enumerate(history):
        if isinstance(step, int):
            fleet.run_until(fleet.now_ms + step * ONE_S)
        elif isinstance(step, str):
            for job in list(fleet.pool.state.jobs)[:1]:
                fleet.step(Cancel(job=job, kill=True))
        else:
            queue, what, length_s, size, priority, limit = step
            spec = replace(timed(what, length_s, size), limit=limit)  # type: ignore[arg-type]
            fleet.submit(f"j{at}", spec, queue, priority=priority)
        check(fleet.pool)
    invariants.check(fleet.pool.state)


def check(pool: Pool) -> None:
    state = pool.state
    for column in range(state.columns.n):
        assert oversubscribed(state.columns, column) is None
    for queue in state.queues.queues.values():
        assert all(queue.held[at] <= most for at, most in queue.maximum.items()), queue.name
        assert queue.max_active is None or queue.active <= queue.max_active
    for limit in state.limits.keys.values():
        assert limit.holders <= limit.most
    for task in state.backlog.tasks():
        if not task.placeable:
            continue
        rejected = sum(misfit.nodes for misfit in state.columns.misfits(task.shape))
        assert state.columns.n - rejected == len(state.columns.room(task.shape))
        view = pool.explain(task.job.row.id, task.name, None)
        assert "about to be placed" not in view.summary, (view, task.shape)
        assert view.remedy
