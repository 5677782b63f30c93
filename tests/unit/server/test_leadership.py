"""A leader and its lease: when it takes over, what it answers once the lease is over, and how it lets go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import task
from tests.unit.server.conftest import Rig, submit_command

from towline.errors import StoreError, Unavailable
from towline.server.leader import InHand, Leader
from towline.server.leader.clock import Clock


class SetLease:
    """A ``Lease`` that the test grants and takes away."""

    def __init__(self) -> None:
        self.held = False
        self.given_up = 0
        self.given_up_at: list[int] = []
        self.told: list[tuple[Any, ...]] = []
        """What the audience was told."""
        self.gone = asyncio.Event()
        self._ours = asyncio.Event()
        self._leaving = asyncio.Event()

    def grant(self) -> None:
        self.held = True
        self._ours.set()

    def lose(self) -> None:
        self.held = False
        self._leaving.set()

    def hand_over(self) -> None:
        self._leaving.set()

    async def acquire(self) -> None:
        await self._ours.wait()
        self._ours.clear()
        self._leaving.clear()

    async def leaving(self) -> None:
        await self._leaving.wait()

    async def give_up(self) -> None:
        if self.held:
            self.given_up += 1
            self.given_up_at.append(len(self.told))
        self.held = False
        self.gone.set()


class Leased(Rig):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lease = SetLease()
        self.lease.told = self.listener.told
        self.leader = Leader(
            self.store, Clock(), self.settings, self.in_hand, self.listener, lease=self.lease
        )

    async def lead(self) -> None:
        self.lease.grant()
        await self.leader.ready.wait()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Leased]:
    made = Leased(tmp_path)
    await made.store.open()
    made.task = asyncio.create_task(made.leader.run())
    yield made
    await made.stop()


async def test_without_the_lease_no_term_is_raised_and_nothing_is_taken(rig: Leased) -> None:
    with pytest.raises(Unavailable):
        await rig.submit("j1", a=task())
    assert await rig.store.counters("default") == (0, 0)
    await rig.lead()
    assert (await rig.store.counters("default"))[0] == 1


@pytest.mark.parametrize("slow", ["raise_term", "load"])
async def test_whoever_loses_the_lease_while_the_store_answers_begins_nothing(
    rig: Leased, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """Another leader may have begun meanwhile, and answer its nodes."""
    ask = getattr(rig.store, slow)

    async def late(*arguments: Any) -> Any:
        answer = await ask(*arguments)
        if rig.lease.held and not lost:
            lost.append(rig.lease)
            rig.lease.held = False
            loop.call_later(0.05, rig.lease.grant)
        return answer

    lost: list[SetLease] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(rig.store, slow, late)
    await rig.lead()
    assert lost and (await rig.store.counters("default"))[0] == 2
    assert [told for told in rig.listener.told if told[0] == "leading"] == [("leading", 2)]


async def test_the_end_of_a_server_that_never_led_is_no_wait(rig: Leased) -> None:
    rig.leader.end()
    assert rig.task is not None
    await rig.task
    assert rig.listener.told == []


async def test_no_heartbeat_is_answered_once_the_lease_is_over_whatever_else_is_known(rig: Leased) -> None:
    await rig.lead()
    await rig.node()
    assert rig.leader.heard("n1") == 1
    rig.lease.held = False  # by the clock; nobody has said so yet
    assert rig.leader.heard("n1") == 0
    assert not rig.leader.leads


async def test_a_lost_lease_ends_the_leadership_and_the_next_one_goes_on(rig: Leased) -> None:
    await rig.lead()
    await rig.submit("j1", a=task())
    rig.lease.lose()
    with pytest.raises(Unavailable):
        await asyncio.gather(*(rig.submit(f"x{n}", a=task()) for n in range(3)))
    await rig.lead()
    assert rig.leader.term == 2
    assert rig.leader.opinion(lambda pool: pool.unfinished_jobs) == 1


async def test_nobody_waits_for_a_store_that_hangs_when_the_lease_is_lost(rig: Leased) -> None:
    await rig.lead()
    hanging, gate = await rig.held_submit("j1", a=task())
    before = len(rig.listener.told)
    rig.lease.lose()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert rig.listener.told[before:] == [("down",)]  # the nodes look for another leader at once
    assert not hanging.done()  # it may land yet
    gate.set()
    await hanging
    assert await rig.store.job("j1") is not None


async def test_a_commit_that_never_comes_back_is_unknown(
    rig: Leased, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towline.server.leader.loop.FLYING_S", 0.01)
    await rig.lead()
    hanging, _ = await rig.held_submit("j1", a=task())
    rig.lease.lose()
    with pytest.raises(Unavailable):
        await hanging


async def test_a_deposed_leader_is_refused_at_its_first_write(rig: Leased) -> None:
    """Its lease says nothing: the term does."""
    await rig.lead()
    await rig.store.raise_term("default")
    with pytest.raises(Unavailable):
        await rig.submit("j1", a=task())
    assert await rig.store.job("j1") is None


async def test_handing_over_commits_what_has_arrived_before_the_lease_is_given_up(rig: Leased) -> None:
    await rig.lead()
    first, gate = await rig.held_submit("j1", a=task())
    second = asyncio.create_task(rig.submit("j2", a=task()))
    await asyncio.sleep(0)
    rig.lease.hand_over()
    await asyncio.sleep(0)
    assert rig.lease.given_up == 0
    gate.set()
    await first
    await second
    await rig.lease.gone.wait()
    with pytest.raises(Unavailable):
        await rig.submit("j3", a=task())
    await rig.lead()
    assert rig.leader.opinion(lambda pool: pool.unfinished_jobs) == 2


async def test_while_it_hands_over_nothing_more_is_taken(rig: Leased) -> None:
    """Else a leader under load would never come to an end."""
    await rig.lead()
    first, gate = await rig.held_submit("j1", a=task())
    rig.lease.hand_over()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await rig.submit("j2", a=task())
    gate.set()
    await first


async def test_a_clean_end_commits_then_gives_the_lease_up(rig: Leased) -> None:
    await rig.lead()
    asked = asyncio.create_task(rig.submit("j1", a=task()))
    await asyncio.sleep(0)
    rig.leader.end()
    await asked
    assert rig.task is not None
    await rig.task
    assert rig.lease.given_up == 1
    # What has arrived is committed, the lease is free, and only then nodes are sent away.
    assert rig.listener.told[rig.lease.given_up_at[0] :] == [("down",)]


async def test_two_leaders_held_at_once_against_one_store(rig: Leased, tmp_path: Path) -> None:
    """Both believe that they have the lease: the older term never commits anything."""
    await rig.lead()
    other = Leased(tmp_path)
    other.store = rig.store
    other.leader = Leader(
        rig.store, Clock(), rig.settings, InHand(tmp_path / "other"), other.listener, lease=other.lease
    )
    running = asyncio.create_task(other.leader.run())
    await other.lead()
    results = await asyncio.gather(
        rig.leader.ask(submit_command("j1", a=task()), ("default", "k1")),
        other.leader.ask(submit_command("j2", a=task()), ("default", "k2")),
        return_exceptions=True,
    )
    assert isinstance(results[0], Unavailable) and not isinstance(results[1], Exception)
    assert [row.id for row in await rig.store.jobs("default", None, 9)] == ["j2"]
    rig.lease.lose()
    other.leader.end()
    await running


async def test_who_has_the_lease_and_cannot_lead_lets_others_try(
    rig: Leased, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towline.server.leader.loop.OTHERS_S", 0.01)
    monkeypatch.setattr("towline.server.leader.loop.TRIES_IN_VAIN", 3)
    tries = 0

    async def fails(pool: str) -> int:
        nonlocal tries
        tries += 1
        raise StoreError("the database takes no writes")

    monkeypatch.setattr(rig.store, "raise_term", fails)
    rig.lease.grant()
    await rig.lease.gone.wait()
    assert tries == 3 and not rig.lease.held
    monkeypatch.undo()
    await rig.lead()
    assert rig.leader.term == 1


async def test_what_is_led_with_is_read_behind_the_term_and_before_the_first_answer(rig: Leased) -> None:
    """A token that was taken back a moment ago opens nothing; where that cannot be read nobody leads."""
    found: list[tuple[int, bool]] = []
    fails = True

    async def read() -> None:
        nonlocal fails
        found.append(((await rig.store.counters("default"))[0], rig.leader.ready.is_set()))
        if fails:
            fails = False
            raise StoreError("not now")

    rig.leader.end()
    assert rig.task is not None
    await rig.task
    rig.leader = Leader(
        rig.store, Clock(), rig.settings, rig.in_hand, rig.listener, lease=rig.lease, before_ready=read
    )
    rig.task = asyncio.create_task(rig.leader.run())
    await rig.lead()
    assert found == [(1, False), (2, False)]
