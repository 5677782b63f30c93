"""Random histories: every invariant after every step, reloads anywhere, the same changes every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import UNSET
from tests.unit.core.driver import Driver, each, node_row, task

from towline.core import invariants
from towline.core.commands import AttemptUpdate, NodeDown, NodeUp, Quarantine, SetPriority, SetQueue
from towline.errors import RequestError
from towline.model.job import Backoff, JobSpec, Limit, Resources, Retries, TaskSpec

NODES = ("n1", "n2")
QUEUES = ("default", "qa", "qb")
LIVE = ("assigned", "preparing", "running")


@st.composite
def tasks(draw: st.DrawFn) -> dict[str, TaskSpec]:
    made: dict[str, TaskSpec] = {}
    size = draw(st.integers(1, 4))
    for at in range(draw(st.integers(1, 5))):
        earlier = list(made)
        plain = draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else []
        by_element = [name for name in plain if made[name].array is not None and draw(st.booleans())]
        array = size if by_element or draw(st.booleans()) else None
        retries = Retries(
            limit=draw(st.integers(0, 2)),
            lost=draw(st.integers(0, 2)),
            backoff=Backoff(first_ms=draw(st.integers(1, 3000))),
        )
        made[f"t{at}"] = task(
            *(each(name) if name in by_element else name for name in plain),
            size=array,
            retries=retries,
            resources=Resources(cpu_milli=draw(st.sampled_from((500, 900))), memory_bytes=1, pids=1),
            on_disconnect=draw(st.sampled_from(("keep", "stop", "wait"))),
            limit=draw(st.sampled_from((None, None, Limit(key="k", max=1), Limit(key="k", max=2)))),
            expect_ms=draw(st.sampled_from((None, 500, 20_000))),
        )
    return made


class PoolMachine(RuleBasedStateMachine):
    """``Driver.step`` checks all invariants; the rules here only choose what happens."""

    @initialize()
    def start(self) -> None:
        self.driver = Driver(node_row("n1"), node_row("n2", cpu_milli=1000))
        self.driver.step(SetQueue(name="top"), SetQueue(name="qa"), SetQueue(name="qb"))
        self.submitted = 0
        self.ended: dict[tuple[str, int, int], tuple[str, int | None]] = {}

    @rule(made=tasks(), priority=st.integers(0, 100), queue=st.sampled_from(QUEUES))
    @precondition(lambda self: self.submitted < 6)
    def submit(self, made: dict[str, TaskSpec], priority: int, queue: str) -> None:
        self.submitted += 1
        self.driver.submit(f"j{self.submitted}", priority=priority, queue=queue, **made)

    @rule(
        name=st.sampled_from(QUEUES),
        weight=st.sampled_from((500, 1000, 3000)),
        cpu=st.sampled_from((None, 900, 1400)),
        active=st.sampled_from((None, 1, 2)),
    )
    def change_queue(self, name: str, weight: int, cpu: int | None, active: int | None) -> None:
        parent = "top" if name != "default" and weight == 3000 else UNSET
        self.driver.step(
            SetQueue(name=name, parent=parent, weight_milli=weight, maximum={"cpu": cpu}, max_active=active)
        )

    @rule(data=st.data(), priority=st.integers(0, 100))
    def change_priority(self, data: st.DataObject, priority: int) -> None:
        jobs = list(self.driver.pool.state.jobs)
        if jobs:
            self.driver.step(SetPriority(job=data.draw(st.sampled_from(jobs)), priority=priority))

    @rule(data=st.data(), made=tasks(), queue=st.sampled_from(QUEUES))
    def ask(self, data: st.DataObject, made: dict[str, TaskSpec], queue: str) -> None:
        """Opinions change nothing, and say something of everything."""
        pool = self.driver.pool
        before = (pool.event_no, self.driver.task_rows())
        pool.plan(JobSpec(name="planned", tasks=made, queue=queue), "default")
        for job in pool.state.jobs.values():
            for asked in job.tasks:
                assert pool.explain(job.row.id, asked.name, None).summary
        assert (pool.event_no, self.driver.task_rows()) == before
        invariants.check(pool.state)

    @invariant()
    def nothing_waits_without_a_reason(self) -> None:
        """What fits on a node now waits for a queue's bound, a key or somebody's reservation."""
        if not hasattr(self, "driver"):
            return
        state = self.driver.pool.state
        for waiting in state.backlog.tasks():
            if waiting.placeable and not waiting.job.quarantined:
                summary = self.driver.pool.explain(waiting.job.row.id, waiting.name, None).summary
                assert "is about to be placed" not in summary, summary

    def some_attempt(self, data: st.DataObject, states: tuple[str, ...]) -> tuple[str, str] | None:
        rows = [row for row in self.driver.table.attempts.values() if row.state in states]
        if not rows:
            return None
        row = data.draw(st.sampled_from(rows))
        return f"{row.job}-{row.task}-{row.index}-{row.number}", row.node

    @rule(data=st.data(), code=st.sampled_from((0, 0, 1)))
    def exit(self, data: st.DataObject, code: int) -> None:
        if found := self.some_attempt(data, LIVE):
            self.driver.exit(found[0], code, node=found[1])

    @rule(data=st.data(), state=st.sampled_from(("preparing", "running", "lost")))
    def move(self, data: st.DataObject, state: str) -> None:
        if found := self.some_attempt(data, LIVE):
            self.driver.report(found[0], state, node=found[1])

    @rule(data=st.data(), state=st.sampled_from(("running", "finished", "lost")))
    def late(self, data: st.DataObject, state: str) -> None:
        """Anything a node may still say of attempts that ended or were lost."""
        if found := self.some_attempt(data, ("finished", "lost")):
            reason = "exited" if state == "finished" else None
            self.driver.report(found[0], state, node=found[1], reason=reason, exit_code=0)

    @rule(data=st.data(), kill=st.booleans(), deep=st.integers(0, 2))
    def cancel(self, data: st.DataObject, kill: bool, deep: int) -> None:
        jobs = list(self.driver.pool.state.jobs.values())
        if not jobs:
            return
        job = data.draw(st.sampled_from(jobs))
        chosen = data.draw(st.sampled_from(job.tasks)) if deep else None
        index = data.draw(st.integers(chosen.first, chosen.last)) if chosen and deep == 2 else None
        self.driver.cancel(job.row.id, chosen.name if chosen else None, index, kill)

    @rule(data=st.data(), deep=st.integers(0, 2), failed=st.booleans())
    def retry(self, data: st.DataObject, deep: int, failed: bool) -> None:
        """Of any job that there ever was, the whole of it, a task or an element."""
        if not self.driver.table.specs:
            return
        job = data.draw(st.sampled_from(sorted(self.driver.table.specs)))
        rows = self.driver.table.record(job).tasks
        chosen = data.draw(st.sampled_from(rows)) if deep else None
        index = data.draw(st.integers(chosen.first, chosen.last)) if chosen and deep == 2 else None
        before = dict(self.driver.table.elements)
        try:
            names = self.driver.retry(job, *([(chosen.name, index)] if chosen else []), failed=failed)
        except RequestError:
            return
        for key, row in self.driver.table.elements.items():
            if key[0] == job and row != before.get(key):
                assert before.get(key) is None or before[key].state != "succeeded"
                self.ended.pop(key, None)
        assert names or job in self.driver.pool.state.jobs

    @rule(after_ms=st.integers(1, 9000))
    def tick(self, after_ms: int) -> None:
        self.driver.tick(after_ms)

    @rule(name=st.sampled_from(NODES))
    def node_leaves(self, name: str) -> None:
        self.driver.step(NodeDown(node=name))
        for _ in range(13):
            self.driver.pool.heard("n2" if name == "n1" else "n1", self.driver.now_ms)
            self.driver.tick(2_000)

    @rule(data=st.data(), name=st.sampled_from(NODES), forgot=st.booleans())
    def node_returns(self, data: st.DataObject, name: str, forgot: bool) -> None:
        row = self.driver.instances[name]
        if forgot:
            row = node_row(name, instance=f"i{self.driver.now_ms}", cpu_milli=row.cpu_milli)
        known = []
        for attempt in self.driver.table.attempts.values():
            if not forgot and attempt.node == name and data.draw(st.booleans()):
                name_of = f"{attempt.job}-{attempt.task}-{attempt.index}-{attempt.number}"
                state = data.draw(st.sampled_from(("running", "finished")))
                reason = "exited" if state == "finished" else None
                known.append(AttemptUpdate(attempt=name_of, state=state, reason=reason, exit_code=0))
        self.driver.instances[name] = row
        self.driver.step(NodeUp(node=msgspec.structs.replace(row), known=tuple(known)))

    @rule()
    def new_leader(self) -> None:
        self.driver.reload()

    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        jobs = list(self.driver.pool.state.jobs)
        if len(jobs) > 2:
            self.driver.step(Quarantine(job=data.draw(st.sampled_from(jobs)), message="broken"))

    @invariant()
    def ends_never_change(self) -> None:
        if not hasattr(self, "driver"):
            return
        for key, row in self.driver.table.elements.items():
            if row.state not in ("active", "queued"):
                assert self.ended.setdefault(key, (row.state, row.exit_code)) == (row.state, row.exit_code)
            else:
                assert key not in self.ended

    def teardown(self) -> None:
        """Heal everything: then every job that is not quarantined must end."""
        if not hasattr(self, "driver"):
            return
        driver = self.driver
        for name in NODES:
            live = [
                AttemptUpdate(attempt=f"{row.job}-{row.task}-{row.index}-{row.number}", state="running")
                for row in driver.table.attempts.values()
                if row.node == name and row.state in LIVE
            ]
            driver.step(NodeUp(node=msgspec.structs.replace(driver.instances[name]), known=tuple(live)))
        for _ in range(300):
            if not driver.pool.unfinished_jobs:
                return
            for row in list(driver.table.attempts.values()):
                if row.state in LIVE:
                    driver.exit(f"{row.job}-{row.task}-{row.index}-{row.number}", node=row.node)
            for name in NODES:
                driver.pool.heard(name, driver.now_ms)
            driver.tick(1_900)
        raise AssertionError("some jobs never end")


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

HISTORY = """
import hashlib, msgspec
from tests.unit.core.driver import Driver, each, node_row, task
from towline.model.job import Retries
from towline.core.commands import SetQueue
from towline.model.job import Limit
driver = Driver(node_row("n1"), node_row("n2", cpu_milli=1300), node_row("n3", cpu_milli=900))
driver.step(SetQueue(name="qa", weight_milli=2000), SetQueue(name="qb", max_active=3))
for job in range(12):
    retries = Retries(limit=1)
    limit = Limit(key="k", max=2) if job % 4 == 0 else None
    tasks = {"a": task(size=9, retries=retries, limit=limit), "b": task(each("a"), size=9), "c": task("b")}
    driver.submit(f"j{job}", priority=job % 3, queue=("default", "qa", "qb")[job % 3], **tasks)
for turn in range(40):
    for attempt in driver.starts():
        job, at, index, number = attempt.split("-")
        node = driver.table.attempts[(job, int(at), int(index), int(number))].node
        driver.exit(attempt, code=int(index) == turn % 9, node=node)
    for name in ("n1", "n2", "n3"):
        driver.pool.heard(name, driver.now_ms)
    driver.tick(1500)
print(hashlib.sha256(msgspec.json.encode(driver.table.events)).hexdigest(), len(driver.table.events))
"""


def test_the_same_commands_give_the_same_changes_under_two_hash_seeds() -> None:
    outputs = set[str]()
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", HISTORY], env=environment, capture_output=True, text=True, check=True
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    digest, count = outputs.pop().split()
    assert int(count) > 400
    assert digest != hashlib.sha256(b"[]").hexdigest()
