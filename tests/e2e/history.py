"""Judges what a fleet has gone through: what the server says of it, against what the tasks themselves wrote.

history = gather(fleet, stamps, jobs)    # when all jobs have ended
broken = judge(history)                  # a sentence for each promise that was not kept
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from tests.e2e.fleet import Fleet, Stamps
from tests.e2e.home import Home
from tests.e2e.lives import Life

ENDED = ("succeeded", "failed", "cancelled", "skipped")
OF_LOST = ("node_lost", "lease_expired", "supervision_lost")
PATIENCE_S = 60.0
NOTHING = Life(0, [], None, 0)
SAID_OF_GAPS = "output may be missing"
"""Where keeper and supervisor died together, and with them what was in a pipe."""
_COUNT = re.compile(rb"(?:\d+\n)*")


class Element(NamedTuple):
    """``lives`` and ``printed`` by attempt number; ``printed`` is what the server gives of the newest one."""

    name: str
    on_disconnect: str
    state: str
    exit_code: int | None
    attempts: list[dict[str, Any]]
    lives: dict[int, Life]
    printed: bytes | None = None
    most: int = 4
    """Attempts that its ``retries`` allow."""


class History(NamedTuple):
    """``events`` in their order, ``accepted`` the jobs that were, ``found`` those that the server knows,
    ``left`` what is still there of attempts although all have ended."""

    events: list[dict[str, Any]]
    accepted: Collection[str]
    found: Collection[str]
    elements: list[Element]
    left: list[str]


def gather(fleet: Fleet, stamps: Stamps, jobs: Collection[str]) -> History:
    views = [fleet.get(f"/v1/jobs/{job}") for job in jobs]
    elements = [
        _element(fleet, stamps, view["id"], task, element)
        for view in views
        for task in view["tasks"]
        for element in task["elements"]
    ]
    return History(
        events=list(events(fleet)),
        accepted=jobs,
        found=[job["id"] for job in fleet.get("/v1/jobs", limit=500)["jobs"]],
        elements=elements,
        left=[*_left(fleet)],
    )


def settled(fleet: Fleet, stamps: Stamps, jobs: Collection[str]) -> History:
    """As ``gather``, once nothing is left over, or after a long wait for that."""
    until_s = time.monotonic() + PATIENCE_S
    while (history := gather(fleet, stamps, jobs)).left and time.monotonic() < until_s:
        time.sleep(0.5)
    return history


def _element(
    fleet: Fleet, stamps: Stamps, job: str, task: dict[str, Any], element: dict[str, Any]
) -> Element:
    name, index = str(task["name"]), int(element["index"])
    spec = fleet.submitted[job][name]
    retries = {"limit": 0, "lost": 3, **spec.get("retries", {})}
    ran = bool(stamps.attempts(name, index))
    return Element(
        name=f"{name}.{index}",
        on_disconnect=spec.get("on_disconnect", "keep"),
        state=element["state"],
        exit_code=element["exit_code"],
        attempts=element["attempts"],
        lives={number: stamps.life(name, number, index) for number in stamps.attempts(name, index)},
        printed=fleet.stdout(job, name, index) if ran else None,
        most=1 + retries["limit"] + retries["lost"],
    )


def events(fleet: Fleet) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        page = fleet.get("/v1/events", limit=10_000, **({} if cursor is None else {"cursor": cursor}))
        yield from page["events"]
        cursor = page["next_cursor"]
        if not page["events"]:
            return


def _left(fleet: Fleet) -> Iterator[str]:
    for machine in fleet.machines.values():
        home = Home(machine.home, machine.home)
        yield from (f"process {pid} of {machine.name}" for pid in (*home.payloads(), *home.contained()))
    for folder in ("leased", "attempts"):
        yield from map(str, fleet.folder.glob(f"*/node/{folder}/*"))


# --- the promises -----------------------------------------------------------------------------------
def judge(history: History, lost: Collection[str] | None = None) -> list[str]:
    """``lost``: the only nodes that may have been declared lost; None: any."""
    broken = [f"{job} was accepted and is unknown" for job in set(history.accepted) - set(history.found)]
    broken += _judge_events(history.events)
    if lost is not None:
        said = {event["data"]["name"] for event in history.events if event["kind"] == "node.lost"}
        broken += [f"{name} was declared lost" for name in sorted(said - set(lost))]
    for element in history.elements:
        broken += (f"{element.name}: {what}" for what in _judge_element(element))
    return broken + [f"left over: {what}" for what in history.left]


def _judge_events(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    numbers = []
    ended: set[tuple[Any, ...]] = set()
    for event in found:
        numbers.append(int(event["cursor"].rpartition(":")[2]))
        data = event["data"]
        if event["kind"] in ("attempt.finished", "attempt.lost") and data["element_state"] in ENDED:
            element = (event["job"], data["task"], data["index"])
            if element in ended:
                yield f"{data['task']}.{data['index']} has ended twice"
            ended.add(element)
    if numbers != list(range(1, len(numbers) + 1)):
        yield "the stream of events has gaps or repetitions"


def _judge_element(element: Element) -> Iterator[str]:
    numbers = [attempt["number"] for attempt in element.attempts]
    if element.state not in ENDED:
        yield f"has not ended: {element.state}"
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"its attempts are {numbers}"
    preempted = sum(attempt["reason"] == "preempted" for attempt in element.attempts)
    if len(numbers) - preempted > element.most:
        yield f"had {len(numbers)} attempts"
    for number in set(element.lives) - set(numbers):
        yield f"attempt {number} ran and is unknown"
    for number, life in sorted(element.lives.items()):
        if life.begun != 1 and life != NOTHING:  # killed between the making of its file and the first line
            yield f"attempt {number} was started {life.begun} times"
    yield from _judge_attempts(element)
    yield from _judge_order(element)
    if element.printed is not None and element.attempts:
        yield from _judge_output(element)


def _judge_attempts(element: Element) -> Iterator[str]:
    for attempt in element.attempts:
        number, life = attempt["number"], element.lives.get(attempt["number"])
        where = f"attempt {number} ({attempt['state']}, {attempt['reason']}, {attempt['exit_code']})"
        if attempt["state"] not in ("finished", "lost"):
            yield f"{where} has not ended"
        if (attempt["state"] == "lost") != (attempt["reason"] in OF_LOST):
            yield f"{where} has a reason of the other kind"
        if attempt["state"] == "finished" and attempt["reason"] == "exited":
            code = None if life is None else life.code
            if code != attempt["exit_code"]:
                yield f"{where} really ended with {code}"
    newest = element.attempts[-1] if element.attempts else None
    if element.state == "succeeded" and (newest is None or newest["exit_code"] != 0):
        yield "succeeded, and its newest attempt did not"


def _judge_order(element: Element) -> Iterator[str]:
    """TOW_ATTEMPT never falls; under stop one is dead before the next starts; under wait there is none."""
    if element.on_disconnect == "wait" and any(each["reason"] == "node_lost" for each in element.attempts):
        yield "was placed again under wait"
    lived = [(number, life) for number, life in sorted(element.lives.items()) if life.stamps]
    for (earlier, first), (later, second) in pairwise(lived):
        if second.stamps[0] < first.stamps[0]:
            yield f"attempt {later} began before attempt {earlier}"
        overlap_ms = round(1000 * (first.stamps[-1] - second.stamps[0]))
        state = next((each["state"] for each in element.attempts if each["number"] == earlier), None)
        if overlap_ms >= 0 and (element.on_disconnect != "keep" or state != "lost"):
            yield f"attempts {earlier} and {later} lived at once for {overlap_ms} ms"


def _judge_output(element: Element) -> Iterator[str]:
    """The newest attempt has counted its lines from 0 on."""
    assert element.printed is not None
    newest = element.attempts[-1]
    life = element.lives.get(newest["number"])
    if life is None or SAID_OF_GAPS in (newest["message"] or ""):
        return
    whole = _COUNT.match(element.printed)
    said = [] if whole is None else whole.group().split()
    if whole is None or whole.end() != len(element.printed):
        yield f"its output is not what it wrote: {element.printed[-80:]!r}"
    elif said != [b"%d" % number for number in range(len(said))]:
        yield "its output has a gap or a repetition"
    elif newest["state"] == "finished" and life.code is not None and len(said) != life.lines:
        yield f"its output has {len(said)} lines of {life.lines}"
