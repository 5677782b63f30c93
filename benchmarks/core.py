"""The pool machine and its commits alone: simulated nodes that end everything at once, no processes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import jobs
from benchmarks.figures import Figure, Options, Report, median_of
from towline.core.commands import (
    AttemptUpdate,
    Command,
    NodeDown,
    NodeUp,
    Order,
    StartOrder,
    Submit,
    Tick,
    attempt_id,
)
from towline.core.commands import Report as Ended
from towline.core.pool import Pool
from towline.core.rows import NodeRow
from towline.model.document import load_tree
from towline.server.leader.rules import rules_maker
from towline.store.memory import MemoryStore
from towline.store.port import Store
from towline.store.sqlite import SqliteStore

POOL = "default"


class Drive:
    """A leader without a server: commands, the pass and the commit, and how long each has taken."""

    def __init__(self, store: Store, now_ms: int) -> None:
        self.store = store
        self.now_ms = now_ms
        self.pool_s = self.commit_s = 0.0
        self.commits = 0

    async def lead(self) -> None:
        self._term = await self.store.raise_term(POOL)
        snapshot, _ = await self.store.load(POOL, self._term)
        self._commit_no = snapshot.commit_no
        self.pool = Pool.load(snapshot, self.now_ms, rules_maker("headroom", "")())

    async def step(self, *commands: Command) -> list[Order]:
        """One batch; returns the orders that may be sent after it."""
        begin = time.perf_counter()
        for command in commands:
            self.pool.apply(command, self.now_ms)
        self.pool.schedule(self.now_ms)
        changes, orders = self.pool.collect()
        between = time.perf_counter()
        if not changes.empty:
            await self.store.commit(POOL, self._term, self._commit_no, changes)
            self._commit_no += 1
            self.commits += 1
        self.pool_s += between - begin
        self.commit_s += time.perf_counter() - between
        return orders

    async def join(self, *names: str, cpu_milli: int = 2000) -> list[Order]:
        return await self.step(*(NodeUp(node=_node(name, cpu_milli)) for name in names))

    async def leave(self, *names: str) -> None:
        """Nothing new goes there; what runs there may still end."""
        await self.step(*(NodeDown(node=name) for name in names))

    async def forget_nodes(self) -> None:
        """Let the silence of nodes that have left grow until they are declared lost."""
        for _ in range(20):
            self.now_ms += 2_000
            await self.step(Tick())

    async def submit(self, job: str, tree: jobs.Tree) -> list[Order]:
        return await self.step(Submit(job=job, namespace="default", spec=load_tree(tree)))

    async def end(self, orders: Sequence[Order], exit_code: Callable[[int], int]) -> list[Order]:
        """Report that these have ended; returns what that lets start."""
        self.now_ms += 10
        by_node: dict[str, list[AttemptUpdate]] = {}
        for order in orders:
            if isinstance(order, StartOrder):
                by_node.setdefault(order.node, []).append(self._ended(order, exit_code(order.index)))
        return await self.step(*(Ended(node=node, updates=tuple(found)) for node, found in by_node.items()))

    def _ended(self, order: StartOrder, code: int) -> AttemptUpdate:
        return AttemptUpdate(
            attempt=attempt_id((order.job, order.task, order.index, order.number)),
            state="finished",
            reason="exited",
            exit_code=code,
            started_at=self.now_ms - 2,
            finished_at=self.now_ms,
        )


def _node(name: str, cpu_milli: int) -> NodeRow:
    return NodeRow(
        id=name,
        name=name,
        instance=f"{name}-1",
        state="ready",
        cpu_milli=cpu_milli,
        memory_bytes=2**40,
        pids=10_000_000,
        labels={},
        runtimes={"process": None},
    )


def run(options: Options) -> Report:
    """An array through Pool and each store, 10 ends a commit, as the server commits under load."""
    count = options.count(50_000, least=1000)
    figures: list[Figure] = []
    for name in ("memory", "SQLite"):
        drives = [asyncio.run(_drive(name, count)) for _ in range(options.pairs)]
        figures += _figures(name, drives, count)
    title = f"an array of {count:,} through Pool and store alone, 40 at a time, 10 ends a commit"
    method = (
        f"{options.pairs} runs each; simulated nodes, no processes; the store's time includes its thread's"
    )
    return Report(name="core", title=title, method=method, figures=figures)


async def _drive(name: str, count: int) -> Drive:
    with tempfile.TemporaryDirectory(prefix="tow-bench-") as folder:
        store: Store = MemoryStore() if name == "memory" else SqliteStore(Path(folder) / "state.db")
        await store.open()
        drive = Drive(store, int(time.time() * 1000))
        await drive.lead()
        await drive.join("n1")
        active = await drive.submit("bench", jobs.array(count))
        while active:
            active = active[10:] + await drive.end(active[:10], lambda _: 0)
        await store.close()
    return drive


def _figures(name: str, drives: list[Drive], count: int) -> list[Figure]:
    rates = [count / (drive.pool_s + drive.commit_s) for drive in drives]
    return [
        median_of(f"{name}: rate", rates, "elements/s"),
        median_of(f"{name}: pool", [drive.pool_s / count * 1e6 for drive in drives], "us/element"),
        median_of(f"{name}: commit", [drive.commit_s / count * 1e6 for drive in drives], "us/element"),
    ]
