"""Whatever happens to the leader of three servers on one PostgreSQL, another one goes on.

What tasks did is told by the files that they write; ``history.judge`` holds every promise against them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import pytest
from tests.e2e.fleet import Stamps
from tests.e2e.history import judge, settled
from tests.e2e.home import until
from tests.e2e.several import QUICK, Server, Several, running

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
]
NODES = ("n1", "n2")
TIMES = {} if os.environ.get("TOWLINE_FULL_TIMES") else QUICK
"""TOWLINE_FULL_TIMES: those of a cluster that nobody has tuned."""
SAMPLES = int(os.environ.get("TOWLINE_KILLS") or 2)
"""Leaders that are killed one after the other."""


@pytest.fixture
def stamps(tmp_path: Path) -> Stamps:
    return Stamps(tmp_path / "stamps")


@pytest.fixture
def fleet(stamps: Stamps) -> Iterator[Several]:
    with running(*NODES, environ=TIMES, mounts=str(stamps.folder)) as made:
        yield made


def test_whatever_happens_to_leaders_work_goes_on(fleet: Several, stamps: Stamps) -> None:
    """Killed, frozen, cut off from the store, stopped: none of it disturbs what runs, and nothing is lost."""
    long = fleet.submit(
        "long",
        key="long",
        kept=stamps.task(*NODES, on_disconnect="keep"),
        leased=stamps.task(*NODES, on_disconnect="stop"),
    )
    until(lambda: stamps.of("kept", 1) and stamps.of("leased", 1), "both to run")
    took_s = [_kill(fleet, stamps, f"killed{number}") for number in range(SAMPLES)]
    told = " ".join(f"{one:.2f}" for one in sorted(took_s))
    print(f"killed: placed after {told} s, median {median(took_s):.2f} s")  # noqa: T201
    _freeze(fleet, stamps)
    _cut_off_from_the_store(fleet, stamps)
    _stop(fleet, stamps)
    assert stamps.attempts("kept") == [1] and stamps.attempts("leased") == [1]
    stamps.end()
    jobs = [job["id"] for job in fleet.get("/v1/jobs")["jobs"]]
    _ended(fleet, *jobs)
    assert long in jobs
    assert judge(settled(fleet, stamps, jobs)) == []


def _kill(fleet: Several, stamps: Stamps, name: str) -> float:
    """After how many seconds something was placed again."""
    before = fleet.leader()
    before.kill()
    took_s = _placed_after(fleet, stamps, name)
    assert fleet.leader() is not before
    before.start(fleet.environ)
    until(lambda: fleet._says_ready(before), "the killed one to be back")
    return took_s


def _freeze(fleet: Several, stamps: Stamps) -> None:
    """Whoever waits for it is answered; when it wakes it is refused, and follows."""
    frozen, others = fleet.leader(), fleet.followers()
    frozen.signal(signal.SIGSTOP)
    try:
        answers = [server.http.get("/v1/nodes", timeout=30).status_code for server in others]
        assert set(answers) <= {200, 503}
        until(lambda: _leader_of(others) not in (None, frozen.address), "another one to lead")
        _submit_at(fleet, others[0], stamps, "frozen")
        terms = [led["term"] for view in fleet.views(others[0]) for led in view["leads"]]
    finally:
        frozen.signal(signal.SIGCONT)
    until(lambda: _leader_of([frozen]) not in (None, frozen.address), "it to follow the other")
    until(lambda: "stepping down" in frozen.log, "it to step down")
    assert frozen.http.post("/v1/jobs/nothing/cancel", json={}).status_code == 404  # as the leader says
    assert [led["term"] for view in fleet.views(others[0]) for led in view["leads"]] == terms


def _cut_off_from_the_store(fleet: Several, stamps: Stamps) -> None:
    """But not from its nodes, which it lets go when its lease is over."""
    cut, others = fleet.leader(), fleet.followers()
    cut.cut_from_store()
    until(lambda: _leader_of(others) not in (None, cut.address), "another one to lead")
    _submit_at(fleet, others[0], stamps, "cut")
    answer = cut.http.post("/v1/jobs/nothing/cancel", json={}, timeout=30)
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    cut.heal()
    until(lambda: _leader_of([cut]) not in (None, cut.address), "it to follow the other")


def _stop(fleet: Several, stamps: Stamps) -> None:
    """It hands over, and asks for no longer lease where others are there."""
    before, others = fleet.leader(), fleet.followers()
    took_s = before.stop()
    begun_s = time.monotonic()
    until(lambda: _leader_of(others) not in (None, before.address), "another one to lead")
    led_s = time.monotonic() - begun_s
    placed_s = _placed_after(fleet, stamps, "stopped")
    print(f"stopped in {took_s:.2f} s, led {led_s:.2f} s later, then placed in {placed_s:.2f} s")  # noqa: T201
    assert all(view["address"] != before.address for view in fleet.views(others[0]))


def _ended(fleet: Several, *jobs: str) -> None:
    until(lambda: all(fleet.get(f"/v1/jobs/{job}")["ended_at"] for job in jobs), "all to end")


def _placed_after(fleet: Several, stamps: Stamps, name: str) -> float:
    """Submit a short task, and wait until it lives: in seconds."""
    begun_s = time.monotonic()
    fleet.submit(name, key=name, **{name: stamps.task(*NODES, lasts_s=0.1)})
    until(lambda: stamps.of(name, 1), f"{name} to be placed")
    return time.monotonic() - begun_s


def _leader_of(servers: list[Server]) -> str | None:
    """The address of the leader, as one of these sees it."""
    for server in servers:
        for view in server.http.get("/v1/servers").json()["servers"]:
            if view["leads"] and view["live"]:
                return str(view["address"])
    return None


def _submit_at(fleet: Several, server: Server, stamps: Stamps, name: str) -> None:
    """At this one alone, again and again until it is taken; returns when the task lives."""
    tasks = {name: stamps.task(*NODES, lasts_s=0.1)}
    body = {"document": {"name": name, "tasks": tasks}, "params": {}, "base_dir": None}

    def submit() -> str | None:
        answer = server.http.post("/v1/jobs", json=body, headers={"idempotency-key": name}, timeout=30)
        assert answer.status_code in (200, 201, 503), answer.text
        return None if answer.status_code == 503 else str(answer.json()["id"])

    fleet.submitted[until(submit, "a submission to be taken")] = tasks
    until(lambda: stamps.of(name, 1), "it to be placed")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_submissions_with_a_key_are_taken_once_over_kills() -> None:
    with running() as fleet:
        _submit_over_kills(fleet)


def _submit_over_kills(fleet: Several) -> None:
    """Four users submit at any server again and again while leaders are killed."""
    over = threading.Event()
    taken: dict[str, set[str]] = {}
    task = {"runtime": "process", "command": ["true"], "where": {"node": "nobody"}}

    def user(name: str) -> None:
        number = 0
        while not over.is_set():
            key = f"{name}{number}"
            body = {"document": {"name": key, "tasks": {"a": task}}, "params": {}, "base_dir": None}
            found = taken.setdefault(key, set())
            for server in (one for one in fleet.up if one.is_there):
                try:
                    answer = server.http.post(
                        "/v1/jobs", json=body, headers={"idempotency-key": key}, timeout=10
                    )
                except httpx2.TransportError:
                    continue
                assert answer.status_code in (200, 201, 503), answer.text
                if answer.status_code != 503:
                    found.add(str(answer.json()["id"]))
            number += bool(found)

    users = [threading.Thread(target=user, args=(name,)) for name in "abcd"]
    for each in users:
        each.start()
    try:
        for _ in range(SAMPLES):
            seen = len(taken)
            until(lambda seen=seen: len(taken) > seen + 8, "some to be taken")
            before = fleet.leader()
            before.kill()
            before.start(fleet.environ)
            until(lambda before=before: fleet.leader() is not before, "another one to lead")
    finally:
        over.set()
        for each in users:
            each.join()
    known: dict[str, list[str]] = {}
    cursor: str | None = None
    while True:
        page: dict[str, Any] = fleet.get("/v1/jobs", limit=1000, **({"cursor": cursor} if cursor else {}))
        for job in page["jobs"]:
            known.setdefault(job["name"], []).append(job["id"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert all(len(ids) == 1 for ids in known.values())
    assert {key: ids for key, ids in taken.items() if ids and ids != set(known.get(key, []))} == {}
