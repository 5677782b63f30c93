"""A leader over a store in memory that can be made to fail, with an audience that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from towline.core.commands import AttemptUpdate, NodeUp, Order, Report, StartOrder, Submit, attempt_id
from towline.core.rows import Changes, NodeRow, PoolSnapshot
from towline.model.job import JobSpec, TaskSpec
from towline.server.leader import InHand, Leader
from towline.server.leader.clock import Clock
from towline.server.settings import Settings
from towline.store.memory import MemoryStore


class FaultyStore(MemoryStore):
    """A store whose commits can be held up, made to fail before, or to fail after they have landed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate: asyncio.Event | None = None
        self.started = asyncio.Event()
        self.before: Exception | None = None
        self.after: Exception | None = None
        self.sizes: list[int] = []
        """Events of each commit that has landed."""

    def hold(self) -> asyncio.Event:
        """The next commits wait until what is returned is set; ``started`` is set when the first has come."""
        self.gate = asyncio.Event()
        self.started.clear()
        return self.gate

    async def commit(self, pool: str, term: int, commit_no: int, changes: Changes) -> None:
        self.started.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.before is not None:
            error, self.before = self.before, None
            raise error
        await super().commit(pool, term, commit_no, changes)
        self.sizes.append(len(changes.events))
        if self.after is not None:
            error, self.after = self.after, None
            raise error


@dataclass
class Listener:
    """What the audience was told, in order: ("leading", term), ("committed", kinds), ("down",)."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    on_orders: Callable[[list[Order]], None] | None = None

    def leading(self, term: int, snapshot: PoolSnapshot) -> None:
        self.told.append(("leading", term))

    def committed(self, changes: Changes, orders: list[Order]) -> None:
        self.told.append(("committed", [event.kind for event in changes.events]))
        self.orders += orders
        if self.on_orders is not None and orders:
            self.on_orders(orders)

    def stepped_down(self) -> None:
        self.told.append(("down",))

    @property
    def starts(self) -> list[tuple[str, int, int, int]]:
        return [(o.job, o.task, o.index, o.number) for o in self.orders if isinstance(o, StartOrder)]


class Rig:
    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = Settings(home=folder, backoff_first_ms=1, backoff_max_ms=5, **settings)
        self.store = FaultyStore()
        self.listener = Listener()
        self.in_hand = InHand(folder / "in-hand")
        self.leader = Leader(self.store, Clock(), self.settings, self.in_hand, self.listener)
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.store.open()
        self.task = asyncio.create_task(self.leader.run())
        await self.leader.ready.wait()

    async def stop(self) -> None:
        if self.task is not None:
            self.leader.end()
            await self.task

    async def submit(self, job: str, **tasks: TaskSpec) -> None:
        await self.leader.ask(submit_command(job, **tasks), ("default", f"key-{job}"))

    async def held_submit(self, job: str, **tasks: TaskSpec) -> tuple[asyncio.Task[None], asyncio.Event]:
        """A submission whose commit has begun, and is held up until the event is set, with all after it."""
        gate = self.store.hold()
        asked = asyncio.create_task(self.submit(job, **tasks))
        await self.store.started.wait()
        return asked, gate

    async def node(self, cpus: int = 4, known: tuple[AttemptUpdate, ...] = ()) -> None:
        await self.leader.ask(NodeUp(node=node_row(cpus), known=known))

    async def finish(self, *attempts: tuple[str, int, int, int], exit_code: int = 0) -> tuple[str, ...]:
        answer = await self.leader.ask(report(*attempts, exit_code=exit_code))
        return tuple(answer)


def submit_command(job: str, **tasks: TaskSpec) -> Submit:
    return Submit(job=job, namespace="default", spec=JobSpec(name=f"name-{job}", tasks=tasks))


def report(*attempts: tuple[str, int, int, int], exit_code: int = 0) -> Report:
    updates = tuple(
        AttemptUpdate(attempt=attempt_id(attempt), state="finished", reason="exited", exit_code=exit_code)
        for attempt in attempts
    )
    return Report(node="n1", updates=updates)


def node_row(cpus: int) -> NodeRow:
    return NodeRow(
        id="n1",
        name="node-1",
        instance="i1",
        state="ready",
        cpu_milli=cpus * 1000,
        memory_bytes=8 * 1024**3,
        pids=100_000,
        labels={},
        runtimes={"process": None},
    )


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    await made.start()
    yield made
    await made.stop()
