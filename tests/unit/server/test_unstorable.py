"""Values that the store never takes: who sent them hears it, and the pool is led on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace
from tests.builders import task
from tests.unit.server.conftest import Rig, node_row, report, submit_command

from towline.core.commands import AttemptUpdate, NodeUp, Report, Submit
from towline.core.rows import Changes
from towline.errors import RequestError, Unavailable, Unstorable

BAD = "unstorable"


@pytest.fixture
def rig(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Its store takes no row with a certain text, as PostgreSQL does where a value fits no column."""
    commit = rig.store.commit

    async def picky(pool: str, term: int, commit_no: int, changes: Changes) -> None:
        texts = [row.message for row in changes.attempts] + [row.name for row in changes.jobs]
        texts += [row.labels.get("rack") for row in changes.nodes]
        if BAD in texts:
            raise Unstorable("postgresql://db: it does not take a value of this")
        await commit(pool, term, commit_no, changes)

    monkeypatch.setattr(rig.store, "commit", picky)
    return rig


async def until_taken(rig: Rig, ask: Callable[[], Awaitable[object]]) -> object:
    """As clients do: the same again where it may or may not have been done."""
    for _ in range(20):
        try:
            return await ask()
        except Unavailable:
            await rig.leader.ready.wait()
    pytest.fail("there never was a leader")


def submission(name: str) -> Submit:
    command = submit_command(name, a=task())
    return replace(command, spec=replace(command.spec, name=name))


async def test_a_submission_is_refused_and_those_beside_it_are_taken(rig: Rig) -> None:
    jobs = ["j1", "j2", "j3"]

    async def submit(name: str) -> object:
        return await until_taken(rig, lambda: rig.leader.ask(submission(name), ("default", f"key-{name}")))

    answers = await asyncio.gather(*map(submit, [*jobs, BAD]), return_exceptions=True)
    assert [isinstance(answer, Exception) for answer in answers] == [False, False, False, True]
    assert isinstance(answers[-1], RequestError)
    assert "does not take a value of this request" in str(answers[-1])
    assert [await rig.store.job(name) is not None for name in [*jobs, BAD]] == [True, True, True, False]
    await until_taken(rig, lambda: rig.submit("j4", a=task()))


async def test_an_update_of_a_node_sets_its_job_aside_and_the_others_are_heard(rig: Rig) -> None:
    await rig.node()
    await rig.submit("j-bad", a=task())
    await rig.submit("j-good", a=task())
    good = report(("j-good", 0, 0, 1)).updates
    bad = (AttemptUpdate(attempt="j-bad-0-0-1", state="finished", reason="exited", exit_code=1, message=BAD),)

    async def as_an_agent_does() -> object:
        await rig.node(known=bad + good)
        return await rig.leader.ask(Report(node="n1", updates=bad + good))

    forgotten = await until_taken(rig, as_an_agent_does)
    assert forgotten == ("j-good-0-0-1",)
    states = [(await rig.store.job(name))[0].state for name in ("j-bad", "j-good")]  # type: ignore[index]
    assert states == ["quarantined", "succeeded"]
    await until_taken(rig, lambda: rig.submit("j3", a=task()))


async def test_a_node_is_refused_and_the_others_work_on(rig: Rig) -> None:
    wrong = node_row(1)
    wrong.id, wrong.name, wrong.labels = "n2", "node-2", {"rack": BAD}
    with pytest.raises(RequestError):
        await until_taken(rig, lambda: rig.leader.ask(NodeUp(node=wrong, known=())))
    await until_taken(rig, rig.node)
    await until_taken(rig, lambda: rig.submit("j1", a=task()))
    assert [row.id for row in await rig.store.nodes("default")] == ["n1"]


async def test_after_it_is_found_commits_have_many_commands_again(rig: Rig) -> None:
    with pytest.raises(RequestError):
        await until_taken(rig, lambda: rig.leader.ask(submission(BAD), ("default", "key")))
    await rig.leader.ready.wait()
    before = len(rig.store.sizes)
    await asyncio.gather(*(rig.submit(f"j{number}", a=task()) for number in range(20)))
    assert len(rig.store.sizes) - before < 5
