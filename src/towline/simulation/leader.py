"""A simulated leader: the pool machine with a group commit that may fail in every way.

It has the shape of the server's: commands are applied as they arrive, also while a commit is
under way, and answers and orders leave only after the commit of their batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from towline.core import invariants
from towline.core.commands import AttemptUpdate, Command, NodeDown, NodeUp, Order, Report, Tick
from towline.core.lease import Silence
from towline.core.pool import Pool
from towline.core.rows import Changes, NodeRow
from towline.errors import RequestError, StaleTerm
from towline.simulation.world import Link, World
from towline.store.port import Store

POOL = "default"
CHECK_EVERY = 20
"""Commits between two checks of all invariants."""

Answered = Callable[[object], None]


class Peer(Protocol):
    """What a leader sees of a node."""

    name: str

    def receive(self, order: Order) -> None: ...

    def forget(self, attempts: tuple[str, ...]) -> None: ...

    def answered(self, term: int, sent_ms: int) -> None: ...


class SimLeader:
    """One incarnation of a leader. ``alive`` ends with a crash; ``deposed`` with a refused commit."""

    def __init__(self, world: World, store: Store) -> None:
        self._world = world
        self._store = store
        self._term = 0
        self._commit_no = 0
        self._pool: Pool | None = None
        self._links: dict[str, tuple[Peer, Link]] = {}
        self._answers: list[tuple[Answered, object]] = []
        self._committing = False
        self._planned = False
        self.alive = True
        self.holds_lease = True
        """Whether no other leader can have taken over, as far as it can know by its clock."""
        self.commits = 0

    @property
    def leading(self) -> bool:
        return self.alive and self._pool is not None

    @property
    def pool(self) -> Pool | None:
        return self._pool

    @property
    def all_committed(self) -> bool:
        return not (self._committing or self._planned or self._answers)

    async def take_over(self) -> None:
        self._term = await self._store.raise_term(POOL)
        snapshot, undecodable = await self._store.load(POOL, self._term)
        assert not undecodable
        self._commit_no = snapshot.commit_no
        self._pool = Pool.load(snapshot, self._world.now_ms, silence=Silence(leased=True))
        invariants.check(self._pool.state)
        self._world.after(1_000, self._tick)

    def crash(self) -> None:
        """Gone at once, with everything that was not committed."""
        self.alive = False
        self._pool = None
        for _, link in self._links.values():
            link.close()

    # --- from nodes and clients -------------------------------------------------------------------
    def hello(
        self, peer: Peer, link: Link, row: NodeRow, known: tuple[AttemptUpdate, ...], sent_ms: int
    ) -> None:
        # Known from now on: the end of an older link, told late, must not count against this one.
        self._links[row.id] = (peer, link)

        def joined(forget: object) -> None:
            assert isinstance(forget, tuple)
            link.send("down", lambda: peer.answered(self._term, sent_ms))
            link.send("down", lambda: peer.forget(forget))

        self.put(NodeUp(node=row, known=known), joined)

    def report(self, peer: Peer, link: Link, updates: tuple[AttemptUpdate, ...]) -> None:
        def committed(forget: object) -> None:
            if isinstance(forget, tuple):
                link.send("down", lambda: peer.forget(forget))

        self.put(Report(node=peer.name, updates=updates), committed)

    def heartbeat(self, peer: Peer, link: Link, sent_ms: int) -> None:
        if self._pool is None or not self.holds_lease:
            return
        if self._pool.heard(peer.name, self._world.now_ms):
            link.send("down", lambda: peer.answered(self._term, sent_ms))
        elif self._links.get(peer.name, (peer, None))[1] is link:
            link.close()

    def gone(self, peer: Peer, link: Link) -> None:
        held = self._links.get(peer.name)
        if held is not None and held[1] is link:
            del self._links[peer.name]
            self.put(NodeDown(node=peer.name), lambda _: None)

    def put(self, command: Command, answered: Answered) -> None:
        """Apply a command now; ``answered`` is called after its commit, if that ever comes."""
        if self._pool is None:
            return
        answer: object
        try:
            answer = self._pool.apply(command, self._world.now_ms)
        except RequestError as refused:
            answer = refused
        self._answers.append((answered, answer))
        self._plan()

    # --- the commit -------------------------------------------------------------------------------
    def _tick(self) -> None:
        if self._pool is None:
            return
        wakeup_ms = self._pool.next_wakeup_ms()
        if wakeup_ms is not None and wakeup_ms <= self._world.now_ms:
            self.put(Tick(), lambda _: None)
        self._world.after(100, self._tick)

    def _plan(self) -> None:
        if not self._planned and not self._committing:
            self._planned = True
            self._world.after(self._world.random.randint(0, 5), self._close)

    def _close(self) -> None:
        self._planned = False
        if self._pool is None or self._committing:
            return
        self._pool.schedule(self._world.now_ms)
        changes, orders = self._pool.collect()
        answers, self._answers = self._answers, []
        self._committing = True
        self._world.after(self._world.random.randint(1, 10), lambda: self._commit(changes, orders, answers))

    async def _commit(
        self, changes: Changes, orders: list[Order], answers: list[tuple[Answered, object]]
    ) -> None:
        world = self._world
        if self._pool is None:
            return None
        if world.chance("crash before the commit", 0.004):
            return self.crash()
        try:
            if not changes.empty:
                await self._store.commit(POOL, self._term, self._commit_no, changes)
                self._commit_no += 1
                self.commits += 1
        except StaleTerm:
            world.counts["fenced off"] = world.counts.get("fenced off", 0) + 1
            return self.crash()
        # The same to everybody outside: a crash now, and a commit whose answer never came.
        if world.chance("crash after the commit", 0.004):
            return self.crash()
        if self.commits % CHECK_EVERY == 0:
            invariants.check(self._pool.state)
        self._committing = False
        for answered, answer in answers:
            answered(answer)
        self._dispatch(orders)
        if self._answers:
            self._plan()
        return None

    def _dispatch(self, orders: list[Order]) -> None:
        for order in orders:
            held = self._links.get(order.node)
            if held is not None:
                peer, link = held
                link.send("down", lambda peer=peer, order=order: peer.receive(order))
