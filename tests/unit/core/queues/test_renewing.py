"""Keys that grow old together are made anew little by little, the oldest first."""

from __future__ import annotations

from tests.unit.core.queues.fleet import Fleet, element, machine

from towline.core.commands import Command, SetQueue, Submit
from towline.core.pool.scheduling import renewing
from towline.model.job import JobSpec

QUEUES, JOBS = 12, 25
ELEMENT_MS = 20


def submissions(queue: str, jobs: int) -> list[Command]:
    spec = JobSpec(name="j", tasks={"t": element(size=100)}, queue=queue)
    return [Submit(job=f"{queue}-{at}", namespace="default", spec=spec) for at in range(jobs)]


def busy() -> Fleet:
    """One core, and far more queued for it in every queue; an element ends every 20 ms."""
    fleet = Fleet([machine(cpu=1)], lambda job, index: ELEMENT_MS)
    fleet.step(*(SetQueue(name=f"q{at}") for at in range(QUEUES)))
    fleet.step(*(each for at in range(QUEUES) for each in submissions(f"q{at}", JOBS)))
    return fleet


def renewed(fleet: Fleet) -> list[str]:
    """The queues whose keys are as of now."""
    lines = fleet.pool.state.backlog.lines.items()
    return [queue.name for queue, line in lines if line.as_of_ms == fleet.now_ms]


def test_a_pass_renews_a_bounded_number_and_the_next_ones_the_rest() -> None:
    fleet = busy()
    assert len(renewed(fleet)) == QUEUES
    fleet.run_until(fleet.now_ms + 900)
    assert not renewed(fleet)
    seen: list[list[str]] = []
    for _ in range(10):
        fleet.run_until(fleet.now_ms + ELEMENT_MS)
        seen.append(renewed(fleet))
    assert max(map(len, seen)) == -(-renewing.MOST // JOBS)
    found = [name for names in seen for name in names]
    assert sorted(found) == sorted(set(found)) == sorted(f"q{at}" for at in range(QUEUES))


def test_keys_that_say_nothing_yet_are_made_at_once() -> None:
    fleet = busy()
    fleet.run_until(fleet.now_ms + 1000)
    fleet.step(*(SetQueue(name=f"new{at}") for at in range(QUEUES)))
    fleet.step(*(each for at in range(QUEUES) for each in submissions(f"new{at}", JOBS)))
    fleet.run_until(fleet.now_ms + ELEMENT_MS)
    as_of = [line.as_of_ms for line in fleet.pool.state.backlog.lines.values()]
    assert min(as_of) >= fleet.now_ms - 1000 - 2 * ELEMENT_MS
