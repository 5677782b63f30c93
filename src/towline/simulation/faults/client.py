"""Simulated clients: each asks any server, and repeats what it asks, under one key, until somebody
answers."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from towline.core.commands import Cancel, Command, Drain, SetPriority, SetQueue, Undrain
from towline.errors import RequestError
from towline.model.document import to_document
from towline.model.job import Array, Backoff, JobSpec, Limit, Need, Resources, Retries, TaskSpec
from towline.simulation.faults.network import Network
from towline.simulation.faults.server import Request, Seat, Server, asking, is_final
from towline.simulation.faults.truth import Truth
from towline.simulation.faults.world import MS, SECOND, World

QUEUES = ("default", "qa", "qb")
PATIENCE_US = 6 * SECOND
AGAIN_US = SECOND
CPU_MILLI = (250, 500, 1000, 3000)


class Clients:
    """``open`` are the requests that nobody has answered yet."""

    def __init__(
        self, world: World, network: Network, truth: Truth, servers: list[Server], pools: list[str]
    ) -> None:
        self.world = world
        self.network = network
        self.truth = truth
        self.open: dict[str, None] = {}
        self.jobs: list[tuple[str, str]] = []
        """(pool, id) of all that were accepted."""
        self._servers = servers
        self._pools = pools
        self._asked = 0

    # --- one request, until it is answered --------------------------------------------------------------
    def ask(
        self, what: str, pool: str, request: Request, answered: Callable[[object], None], client: str = ""
    ) -> None:
        """``answered`` is called once, with the answer or a RequestError."""
        self._asked += 1
        name = f"{what}{self._asked}"
        self.open[name] = None
        self._send(name, client or f"client{self._asked % 5}", pool, request, answered)

    def _send(
        self, name: str, client: str, pool: str, request: Request, answered: Callable[[object], None]
    ) -> None:
        if name not in self.open:
            return
        server = self.world.random.choice(self._servers)
        tried = [False]

        def again() -> None:
            if not tried[0]:
                tried[0] = True
                self._send(name, client, pool, request, answered)

        def heard(answer: object) -> None:
            if name in self.open and is_final(answer):
                del self.open[name]
                answered(answer)
            elif not tried[0]:
                self.world.after(self.world.random.randrange(AGAIN_US), again)

        self.network.post(client, server.name, name, server.hear, client, pool, request, heard)
        self.world.after(self.world.random.randrange(PATIENCE_US // 2, PATIENCE_US), again)

    def command(self, what: str, pool: str, command: Command) -> None:
        self.ask(what, pool, asking(command), _heard)

    # --- what they want ---------------------------------------------------------------------------------
    def begin(self, pool: str) -> None:
        """The queues that jobs name."""
        for queue in QUEUES[1:]:
            self.command("queue", pool, SetQueue(name=queue))

    def submit(self) -> None:
        pool = self.world.random.choice(self._pools)
        key = f"key{self._asked}"
        spec = random_job(self.world, f"job{self._asked}")
        body = msgspec.json.encode({"document": to_document(spec)})

        async def request(seat: Seat) -> str:
            return (await seat.intake.submit(body, key))[0]

        def answered(answer: object) -> None:
            if isinstance(answer, str):
                self.truth.answered(key, answer)
                self.jobs.append((pool, answer))
                self._go_on(pool, answer)
            elif "queue" not in str(answer):  # a queue that is made later
                self.world.breach(f"a submission that is well was refused: {answer!r}")
            else:
                self.submit()

        self.ask("submit", pool, request, answered)
        if self.world.chance("a submission is sent twice at once", 0.1):
            self.ask("submit", pool, request, lambda answer: self._same(key, answer))

    def _same(self, key: str, answer: object) -> None:
        if isinstance(answer, str):
            self.truth.answered(key, answer)

    def _go_on(self, pool: str, job: str) -> None:
        """Whatever a user may want of a job after it was accepted."""
        world, random = self.world, self.world.random
        later = random.randrange(SECOND, 40 * SECOND)
        if random.random() < 0.2:
            kill = random.random() < 0.3
            world.after(later, self.command, "cancel", pool, Cancel(job=job, kill=kill))
        if random.random() < 0.2:
            command = SetPriority(job=job, priority=random.choice((5, 50)))
            world.after(later, self.command, "priority", pool, command)
        if random.random() < 0.4:
            world.after(random.randrange(MS, 60 * SECOND), self._retry, pool, job)

    def ended(self, pool: str, job: str) -> None:
        """What did not succeed is run again, by several people at once, each with what they have read."""
        random = self.world.random
        if self.world.faulty and random.random() < 0.6:
            for _ in range(random.choice((1, 2, 3, 4))):
                self.world.after(random.randrange(50 * MS), self._retry, pool, job)

    def _retry(self, pool: str, job: str) -> None:
        failed_only, key = self.world.random.random() < 0.5, f"retry{self._asked}"

        async def request(seat: Seat) -> object:
            found = await seat.store.find_jobs("default", job)
            return await seat.retrier.retry(found[0], (), failed_only, key)

        def answered(answer: object) -> None:
            _heard(answer)
            if self.world.chance("an answer to a retry is lost", 0.4):
                later_us = self.world.random.randrange(30 * SECOND)
                self.world.after(later_us, self.ask, "retry", pool, request, _heard)

        self.ask("retry", pool, request, answered)

    def change_queue(self) -> None:
        """Queues only ever get bounds under which the largest element still fits."""
        random = self.world.random
        command = SetQueue(
            name=random.choice(QUEUES),
            weight_milli=random.choice((500, 1000, 3000)),
            maximum={"cpu": random.choice((None, 3000, 5000))},
            max_active=random.choice((None, 1, 4)),
            max_priority=random.choice((60, 100)),
        )
        self.command("queue", random.choice(self._pools), command)

    def drain(self, pool: str, node: str) -> None:
        """Take a node out of service for a while."""
        random = self.world.random
        self.command("drain", pool, Drain(node=node, deadline_ms=random.choice((None, 1, 2_000))))
        self.world.after(random.randrange(500 * MS, 8 * SECOND), self.undrain, pool, node)

    def undrain(self, pool: str, node: str) -> None:
        self.command("undrain", pool, Undrain(node=node))


def _heard(answer: object) -> None:
    assert not isinstance(answer, Exception) or isinstance(answer, RequestError)


def random_job(world: World, name: str) -> JobSpec:
    """A small graph of tasks and arrays with every kind of need and retry."""
    random = world.random
    size = random.randint(2, 12)
    tasks: dict[str, TaskSpec] = {}
    for at in range(random.randint(1, 4)):
        earlier = random.sample(list(tasks), min(len(tasks), random.randint(0, 2)))
        each = [other for other in earlier if tasks[other].array and random.random() < 0.5]
        is_array = bool(each) or random.random() < 0.5
        tasks[f"t{at}"] = TaskSpec(
            runtime="process",
            command=("true",),
            needs=tuple(Need(task=other, each=other in each) for other in earlier),
            array=Array(first=0, last=size - 1) if is_array else None,
            resources=Resources(cpu_milli=random.choice(CPU_MILLI), memory_bytes=2**20, pids=8),
            retries=Retries(
                limit=random.randint(0, 2),
                lost=random.choice((0, 3, 10)),
                backoff=Backoff(first_ms=random.choice((1, 500))),
            ),
            on_disconnect=random.choice(("keep", "stop", "stop", "wait")),
            limit=Limit(key=random.choice("ab"), max=random.randint(1, 3)) if random.random() < 0.2 else None,
            expect_ms=random.choice((None, None, 100, 10_000)),
        )
    queue = random.choice(QUEUES)
    return JobSpec(name=name, tasks=tasks, priority=random.choice((10, 50, 50)), queue=queue)
