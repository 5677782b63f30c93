"""Simulated clients: they submit, repeat until they are answered, and now and then cancel or retry."""

from __future__ import annotations

from collections.abc import Callable

from towline.core.commands import Cancel, Drain, Retry, SetPriority, SetQueue, Submit, Undrain
from towline.errors import Outdated, RequestError
from towline.model.job import Array, Backoff, JobSpec, Limit, Need, Resources, Retries, TaskSpec
from towline.simulation.leader import SimLeader
from towline.simulation.world import World
from towline.store.port import Store

REPEAT_MS = 2_000
QUEUES = ("default", "qa", "qb")


class SimClients:
    """``accepted`` are the jobs whose submission was answered; ``sent`` all that were sent; ``retrying``
    counts retries that nobody has answered yet."""

    def __init__(self, world: World, store: Store, leader: Callable[[], SimLeader | None]) -> None:
        self._world = world
        self._store = store
        self._leader = leader
        self.sent: dict[str, JobSpec] = {}
        self.accepted: set[str] = set()
        self.retrying = 0
        self._retries = 0

    def submit(self) -> None:
        """A new job under a new id; it is repeated under the same id until it is answered."""
        job = f"job{len(self.sent)}"
        self.sent[job] = random_job(self._world, job)
        self._world.after(0, lambda: self._send(job))
        if self._world.chance("a queue changes", 0.3):
            self._world.after(self._world.random.randint(0, 20_000), self._set_queue)
        if self._world.chance("a priority changes", 0.2):
            self._world.after(self._world.random.randint(1, 20_000), lambda: self._set_priority(job))
        if self._world.chance("cancel", 0.15):
            self._world.after(self._world.random.randint(1, 20_000), lambda: self._cancel(job))
        for _ in range(3):
            if self._world.chance("retry", 0.4):
                self._world.after(self._world.random.randint(1, 40_000), lambda: self._begin_retry(job))

    async def _send(self, job: str) -> None:
        if job in self.accepted:
            return
        if await self._store.job(job) is not None:
            self.accepted.add(job)
            return
        leader = self._leader()
        if leader is not None:

            def answered(_: object) -> None:
                self.accepted.add(job)

            # A repetition changes nothing: the queues are there from the first time on.
            for queue in QUEUES:
                leader.put(SetQueue(name=queue), _heard)
            leader.put(Submit(job=job, namespace="default", spec=self.sent[job]), answered)
        self._world.after(REPEAT_MS, lambda: self._send(job))

    def _set_queue(self) -> None:
        """Queues only ever get bounds under which the largest element still fits."""
        random, leader = self._world.random, self._leader()
        if leader is not None:
            bounds: dict[str, int | None] = {"cpu": random.choice((None, 3000, 5000))}
            command = SetQueue(
                name=random.choice(QUEUES),
                weight_milli=random.choice((500, 1000, 3000)),
                maximum=bounds,
                max_active=random.choice((None, 1, 4)),
                max_priority=random.choice((60, 100)),
            )
            leader.put(command, _heard)

    def _set_priority(self, job: str) -> None:
        leader = self._leader()
        if leader is not None:
            leader.put(SetPriority(job=job, priority=self._world.random.choice((5, 50))), _heard)

    def drain(self, node: str) -> None:
        """Take a node out of service for a while."""
        leader, random = self._leader(), self._world.random
        if leader is not None:
            leader.put(Drain(node=node, deadline_ms=random.choice((None, 1, 2_000))), _heard)
            self._world.after(random.randint(500, 8_000), lambda: self.undrain(node))

    def undrain(self, node: str) -> None:
        leader = self._leader()
        if leader is not None:
            leader.put(Undrain(node=node), _heard)

    def _cancel(self, job: str) -> None:
        leader = self._leader()
        if leader is not None and job in self.accepted:
            kill = self._world.random.random() < 0.3
            leader.put(Cancel(job=job, kill=kill), _heard)

    # --- what did not succeed runs again --------------------------------------------------------------
    def _begin_retry(self, job: str) -> None:
        self._retries += 1
        self.retrying += 1
        key, failed_only = f"retry{self._retries}", self._world.random.random() < 0.5
        self._world.after(0, lambda: self._retry(job, key, failed_only, Once()))

    async def _retry(self, job: str, key: str, failed_only: bool, once: Once) -> None:
        """Under one key until it is answered: with another leader, or a record that had grown old, again."""
        if once.done:
            return
        leader = self._leader()
        record = await self._store.record("default", job, "default", key)
        if record is not None and leader is not None:

            def answered(answer: object) -> None:
                lost = self._world.chance("the answer to a retry is lost", 0.2)
                if not (once.done or lost or isinstance(answer, Outdated)):
                    assert isinstance(answer, tuple | RequestError)
                    once.done = True
                    self.retrying -= 1

            command = Retry(job=job, record=record, failed_only=failed_only, key=key, digest="same")
            # What was read is on its way for a while, in which the job goes on.
            late = self._world.chance("a record grows old", 0.2)
            delay_ms = self._world.random.randint(0, 20_000 if late else 50)
            self._world.after(delay_ms, lambda: leader.put(command, answered))
        self._world.after(REPEAT_MS, lambda: self._retry(job, key, failed_only, once))


class Once:
    """Whether a request has been answered."""

    def __init__(self) -> None:
        self.done = False


def _heard(answer: object) -> None:
    assert answer == () or isinstance(answer, RequestError)


def random_job(world: World, name: str) -> JobSpec:
    """A small graph of tasks and arrays with every kind of need and retry."""
    random = world.random
    size = random.randint(2, 12)
    tasks: dict[str, TaskSpec] = {}
    for at in range(random.randint(1, 5)):
        earlier = random.sample(list(tasks), min(len(tasks), random.randint(0, 2)))
        each = [other for other in earlier if tasks[other].array and random.random() < 0.5]
        is_array = bool(each) or random.random() < 0.5
        tasks[f"t{at}"] = TaskSpec(
            runtime="process",
            command=("true",),
            needs=tuple(Need(task=other, each=other in each) for other in earlier),
            array=Array(first=0, last=size - 1) if is_array else None,
            resources=Resources(cpu_milli=random.choice((250, 500, 1000, 3000)), memory_bytes=2**20, pids=8),
            retries=Retries(
                limit=random.randint(0, 2),
                lost=random.choice((0, 3, 10)),
                backoff=Backoff(first_ms=random.choice((1, 500))),
            ),
            on_disconnect=random.choice(("keep", "keep", "stop", "stop", "wait")),
            limit=Limit(key=random.choice("ab"), max=random.randint(1, 3)) if random.random() < 0.2 else None,
            expect_ms=random.choice((None, None, 100, 10_000)),
        )
    queue = random.choice(QUEUES)
    return JobSpec(name=name, tasks=tasks, priority=random.choice((10, 50, 50, 90)), queue=queue)
