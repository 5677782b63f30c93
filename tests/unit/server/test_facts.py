"""Pages of a task's elements: those in one state, however far apart they are."""

from __future__ import annotations

import pytest
from tests.unit.server.conftest import Rig

from towline.core.commands import Cancel
from towline.identity.roles import DEFAULT as NAMESPACE
from towline.model.job import Array, Resources, TaskSpec
from towline.server.facts import SCAN_STEP, Facts

SIZE = SCAN_STEP + 100


async def end_all(rig: Rig, failing: set[int]) -> None:
    await rig.node(cpus=SIZE)
    for exit_code in (0, 1):
        chosen = [key for key in rig.listener.starts if (key[2] in failing) == bool(exit_code)]
        await rig.finish(*chosen, exit_code=exit_code)


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
async def test_pages_of_one_state_give_each_element_once(rig: Rig, limit: int) -> None:
    failing = {0, 3, 4, SCAN_STEP - 1, SCAN_STEP, SIZE - 1}
    small = Resources(cpu_milli=10, memory_bytes=2**20, pids=1)
    array = Array(first=0, last=SIZE - 1)
    await rig.submit("j1", t=TaskSpec(runtime="process", command=("true",), resources=small, array=array))
    await end_all(rig, failing)
    facts = Facts(rig.store, NAMESPACE)
    row = await facts.find("j1")
    seen: list[int] = []
    cursor: str | None = None
    for _ in range(len(failing) + 1):
        page = await facts.page(row, "t", cursor, limit, "failed")
        assert len(page.elements) <= limit
        seen += [element.index for element in page.elements]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert cursor is None
    assert seen == sorted(failing)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_what_is_queued_is_found_behind_all_that_has_ended(rig: Rig, cancelled: bool) -> None:
    """At once where the counts say where it begins, page by page where an element left early."""
    small = Resources(cpu_milli=10, memory_bytes=2**20, pids=1)
    array = Array(first=0, last=4 * SCAN_STEP)
    await rig.submit("j1", t=TaskSpec(runtime="process", command=("true",), resources=small, array=array))
    if cancelled:
        await rig.leader.ask(Cancel(job="j1", task="t", index=4 * SCAN_STEP - 1))
    await rig.node(cpus=SCAN_STEP // 100)
    await rig.finish(*rig.listener.starts[:SCAN_STEP], exit_code=0)
    facts = Facts(rig.store, NAMESPACE)
    row = await facts.find("j1")
    task = await facts.task_row(row, "t")
    page = await facts.page(row, "t", None, 2, "queued")
    assert [element.index for element in page.elements] == [task.next, task.next + 1]
