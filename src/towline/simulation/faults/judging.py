"""Judges a whole history: the store's record against what containers really did."""

from __future__ import annotations

from collections.abc import Iterator

from towline.core.commands import attempt_id
from towline.core.rows import AttemptRow, ElementRow, EventRow, RangeRow, TaskRow
from towline.model.job import JobSpec
from towline.simulation.faults.storing import now
from towline.simulation.faults.truth import ENDED, Truth
from towline.store.memory import MemoryStore


class Record:
    """Everything that the store says of one job. ``retried``: how often each element was asked to run
    again, by task name and index."""

    def __init__(self, job: str, spec: JobSpec, state: str, tasks: list[TaskRow]) -> None:
        self.job, self.spec, self.state, self.tasks = job, spec, state, tasks
        self.elements: dict[tuple[int, int], ElementRow] = {}
        self.attempts: dict[tuple[int, int, int], AttemptRow] = {}
        self.ranges: list[RangeRow] = []
        self.retried: dict[tuple[str, int], int] = {}

    def preemptions(self, task: int, index: int) -> int:
        """Attempts that were stopped to make room, which are no tries."""
        rows = (row for key, row in self.attempts.items() if key[:2] == (task, index))
        return sum(row.reason == "preempted" for row in rows)

    def state_of(self, task: int, index: int) -> str | None:
        element = self.elements.get((task, index))
        if element is not None:
            return element.state
        for row in self.ranges:
            if row.task == task and row.lo <= index <= row.hi:
                return row.state
        return None


def read(store: MemoryStore, job: str) -> Record | None:
    found = now(store.job(job))
    if found is None:
        return None
    row, spec = found
    record = Record(job, spec.spec, row.state, now(store.tasks(job)))
    for task in record.tasks:
        page = now(store.elements(job, task.task, task.first - 1, task.last))
        record.elements |= {(task.task, element.index): element for element in page.elements}
        record.attempts |= {(task.task, row.index, row.number): row for row in page.attempts}
        record.ranges += page.ranges
    return record


def judge(store: MemoryStore, truth: Truth, pools: list[str], *, healed: bool) -> list[str]:
    """Every promise that is broken, in words; an empty list is a pass. ``healed``: everything has to have
    ended."""
    faults: list[str] = []
    retried: dict[str | None, dict[tuple[str, int], int]] = {}
    for pool in pools:
        events = now(store.events(pool, 0, 1_000_000))
        retried |= _retried(events)
        faults += _judge_events(pool, events)
    for job in sorted(truth.accepted):
        record = read(store, job)
        if record is None:
            faults.append(f"{job} was accepted and is not in the store")
            continue
        record.retried = retried.get(job, {})
        faults += _judge_job(record, truth, healed)
    return faults


def _judge_job(record: Record, truth: Truth, healed: bool) -> Iterator[str]:
    if healed and record.state not in ENDED:
        yield f"{record.job} has not ended: {record.state}"
    for task in record.tasks:
        spec = list(record.spec.tasks.values())[task.task]
        most = 1 + spec.retries.limit + spec.retries.lost
        for index in range(task.first, task.last + 1):
            where = f"{record.job}/{task.name}.{index}"
            state = record.state_of(task.task, index)
            if healed and state not in ENDED:
                yield f"{where} has not ended: {state}"
            element = record.elements.get((task.task, index))
            if element is not None:
                yield from _judge_element(record, where, element, truth)
                tries = element.number - record.preemptions(task.task, index)
                allowed = most * (1 + record.retried.get((task.name, index), 0))
                if tries > allowed:
                    yield f"{where} had {tries} attempts of {allowed}"
        yield from _judge_needs(record, task, truth)


def _judge_element(record: Record, where: str, element: ElementRow, truth: Truth) -> Iterator[str]:
    numbers = [key[2] for key in record.attempts if key[:2] == (element.task, element.index)]
    if sorted(numbers) != list(range(1, element.number + 1)):
        yield f"{where} has the attempts {numbers}, its newest is {element.number}"
    for number in numbers:
        row = record.attempts[(element.task, element.index, number)]
        if element.state in ENDED and row.state not in ("finished", "lost"):
            yield f"{where} has ended and its attempt {number} is {row.state}"
    attempt = attempt_id((record.job, element.task, element.index, element.number))
    life = truth.lives.get(attempt)
    code = life.code if life is not None and life.ended_us is not None else None
    if element.state == "succeeded" and code != 0:
        yield f"{where} succeeded, really {attempt} is {life}"
    if element.state == "failed" and element.reason == "exited" and not code:
        yield f"{where} failed, really {attempt} is {life}"


def _judge_needs(record: Record, task: TaskRow, truth: Truth) -> Iterator[str]:
    """No element may have started before what it needs had really succeeded."""
    names = list(record.spec.tasks)
    spec = record.spec.tasks[task.name]
    for (position, index), element in record.elements.items():
        if position != task.task:
            continue
        first = truth.lives.get(attempt_id((record.job, position, index, 1)))
        for need in spec.needs:
            other = record.tasks[names.index(need.task)]
            wanted = [index] if need.each else range(other.first, other.last + 1)
            for needed in wanted:
                end = _success(record, other.task, needed, truth)
                if end is None or (first is not None and first.began_us < end):
                    where = f"{record.job}/{task.name}.{index}"
                    yield f"{where} was placed ({element.state}) before {need.task}.{needed} succeeded"


def _success(record: Record, task: int, index: int, truth: Truth) -> int | None:
    element = record.elements.get((task, index))
    if element is None or element.state != "succeeded":
        return None
    life = truth.lives.get(attempt_id((record.job, task, index, element.number)))
    return life.ended_us if life is not None and life.code == 0 else None


def _judge_events(pool: str, events: list[EventRow]) -> Iterator[str]:
    numbers = [event.number for event in events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the stream of {pool} has gaps or repetitions"
    ended: dict[tuple[str | None, str, int], str] = {}
    keys: list[str] = []
    for event in events:
        if event.kind == "job.retried":
            keys.append(event.data["key"])
        for index in _again(event):
            if ended.pop((event.job, event.data["task"], index), None) == "succeeded":
                yield f"{event.job}/{event.data['task']}.{index} had succeeded and ran again"
        if event.kind in ("attempt.finished", "attempt.lost") and event.data["element_state"] in ENDED:
            key = (event.job, event.data["task"], event.data["index"])
            if key in ended:
                yield f"{key} ended twice: {ended[key]}, then {event.data['element_state']}"
            ended[key] = event.data["element_state"]
    if len(keys) > len(set(keys)):
        yield "a retry has taken effect twice"


def _again(event: EventRow) -> Iterator[int]:
    """The elements that an event says run again."""
    if event.kind == "elements.retried":
        for lo, hi in event.data["ranges"]:
            yield from range(lo, hi + 1)


def _retried(events: list[EventRow]) -> dict[str | None, dict[tuple[str, int], int]]:
    counts: dict[str | None, dict[tuple[str, int], int]] = {}
    for event in events:
        for index in _again(event):
            of_job, key = counts.setdefault(event.job, {}), (event.data["task"], index)
            of_job[key] = of_job.get(key, 0) + 1
    return counts
