"""Whatever happens to the leader of three servers on one PostgreSQL, or to the ZooKeeper that has their
leases, another one goes on.

What tasks did is told by the files that they write; ``history.judge`` holds every promise against them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
FOR_NOBODY = ("inhand", "refused")
"""Jobs that no node runs."""
SAMPLES = int(os.environ.get("TOWLINE_KILLS") or 2)
"""Leaders that are killed one after the other."""


@pytest.fixture
def stamps(tmp_path: Path) -> Stamps:
    return Stamps(tmp_path / "stamps")


@pytest.fixture
def fleet(stamps: Stamps) -> Iterator[Several]:
    with running(*NODES, environ=TIMES, mounts=str(stamps.folder)) as made:
        yield made


def _run_all_the_while(fleet: Several, stamps: Stamps) -> str:
    """A job under each rule for silent nodes that would run on; returns once both of it run."""
    job = fleet.submit(
        "long",
        key="long",
        kept=stamps.task(*NODES, on_disconnect="keep"),
        leased=stamps.task(*NODES, on_disconnect="stop"),
    )
    until(lambda: stamps.of("kept", 1) and stamps.of("leased", 1), "both to run")
    return job


def _undisturbed(fleet: Several, stamps: Stamps, job: str) -> None:
    """It still has its first attempts, and nothing else was lost either."""
    assert stamps.attempts("kept") == [1] and stamps.attempts("leased") == [1]
    _all_kept(fleet, stamps, job)


def test_whatever_happens_to_leaders_work_goes_on(fleet: Several, stamps: Stamps) -> None:
    """Killed, frozen, cut off from the store, stopped: none of it disturbs what runs, and nothing is lost."""
    long = _run_all_the_while(fleet, stamps)
    took_s = [_kill(fleet, stamps, f"killed{number}") for number in range(SAMPLES)]
    told = " ".join(f"{one:.2f}" for one in sorted(took_s))
    print(f"killed: placed after {told} s, median {median(took_s):.2f} s")  # noqa: T201
    _freeze(fleet, stamps)
    _raise_the_term_of_a_frozen_leader(fleet, stamps)
    _cut_off_from_the_store(fleet, stamps)
    _stop(fleet, stamps)
    _undisturbed(fleet, stamps, long)


def _all_kept(fleet: Several, stamps: Stamps, *accepted: str) -> None:
    """By what the tasks wrote, once all have ended."""
    stamps.end()
    jobs = [job["id"] for job in fleet.get("/v1/jobs")["jobs"] if job["name"] not in FOR_NOBODY]
    assert {*accepted} <= {*jobs}
    _ended(fleet, *jobs)
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
    """Whoever waits for it is answered; when it wakes it is refused, and follows. What it was asked meanwhile
    it does not do by itself."""
    frozen, others = fleet.leader(), fleet.followers()
    frozen.signal(signal.SIGSTOP)
    asked = ThreadPoolExecutor(1)
    try:
        in_hand = asked.submit(_ask_for, frozen, "inhand")
        answers = [server.http.get("/v1/nodes", timeout=30).status_code for server in others]
        assert set(answers) <= {200, 503}
        until(lambda: _leader_of(others) not in (None, frozen.address), "another one to lead")
        _submit_at(fleet, others[0], stamps, "frozen")
        terms = [led["term"] for view in fleet.views(others[0]) for led in view["leads"]]
    finally:
        frozen.signal(signal.SIGCONT)
    answer = in_hand.result()
    assert answer.status_code in (201, 503), answer.text  # 201: the next leader has taken it
    if answer.status_code == 201:
        assert fleet.get(f"/v1/jobs/{answer.json()['id']}")["name"] == "inhand"
    asked.shutdown()
    until(lambda: _leader_of([frozen]) not in (None, frozen.address), "it to follow the other")
    until(lambda: "stepping down" in frozen.log, "it to step down")
    assert frozen.http.post("/v1/jobs/nothing/cancel", json={}).status_code == 404  # as the leader says
    assert [led["term"] for view in fleet.views(others[0]) for led in view["leads"]] == terms


def _ask_for(server: Server, name: str) -> httpx2.Response:
    """A job that no node runs."""
    task = {"runtime": "process", "command": ["true"], "where": {"node": "nobody"}}
    body = {"document": {"name": name, "tasks": {"a": task}}, "params": {}, "base_dir": None}
    return server.http.post("/v1/jobs", json=body, headers={"idempotency-key": name}, timeout=60)


def _raise_the_term_of_a_frozen_leader(fleet: Several, stamps: Stamps) -> None:
    """As the next leader does, and while it holds its lease by its own clock: its first write is refused."""
    leader, said = fleet.leader(), fleet.leader().log
    (term,) = [led["term"] for view in fleet.views(leader) for led in view["leads"]]
    leader.signal(signal.SIGSTOP)
    try:
        fleet.postgres.run("UPDATE pool SET term = term + 1")
    finally:
        leader.signal(signal.SIGCONT)
    answer = _ask_for(leader, "refused")
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1, answer.text
    assert "another leader" in until(lambda: _stepped_down(leader.log.removeprefix(said)), "it to step down")
    _submit_at(fleet, leader, stamps, "again")
    until(lambda: _term(fleet) > term + 1, "it to lead in a term of its own")


def _stepped_down(log: str) -> str:
    return next((line for line in log.splitlines() if "stepping down" in line), "")


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


def test_whatever_happens_to_zookeeper_work_goes_on(stamps: Stamps) -> None:
    """One of the ensemble dies, then it has no quorum; a leader sleeps until its session is gone; another one
    is killed. None of it disturbs what runs, and nothing is lost."""
    fleet = Several(environ=TIMES, mounts=str(stamps.folder), leases_in_zookeeper=True)
    try:
        fleet.serve()
        fleet.join(*NODES)
        long = _run_all_the_while(fleet, stamps)
        _kill_one_of_the_ensemble(fleet, stamps)
        _take_the_quorum(fleet, stamps)
        _sleep_through_the_session(fleet, stamps)
        _kill(fleet, stamps, "killed")
        _undisturbed(fleet, stamps, long)
    except BaseException:
        print(fleet.situation())  # noqa: T201
        raise
    finally:
        fleet.close()


def _kill_one_of_the_ensemble(fleet: Several, stamps: Stamps) -> None:
    """The one that leads it; the leader of the pool stays."""
    assert fleet.ensemble is not None
    before, dead = fleet.leader(), fleet.ensemble.leader()
    dead.kill()
    fleet.ensemble.wait(2)
    _placed_after(fleet, stamps, "two")
    dead.start()
    fleet.ensemble.wait()
    assert fleet.leader() is before or "a lease has run out" in before.log  # where the election took long


def _take_the_quorum(fleet: Several, stamps: Stamps) -> None:
    """Nobody leads without proof, and everybody says so; it is over by itself."""
    assert fleet.ensemble is not None
    dead = fleet.ensemble.servers[:2]
    for one in dead:
        one.kill()
    for server in fleet.servers:
        answer = until(lambda server=server: _refused(server), "it to lead no more, and know of nobody")
        assert int(answer.headers["retry-after"]) >= 1
        assert server.http.get("/v1/jobs").status_code == 200  # facts are there all the same
    for one in dead:
        one.start()
    fleet.ensemble.wait()
    _placed_after(fleet, stamps, "quorum")


def _term(fleet: Several) -> int:
    """Of the leader that is known to a server, wherever that is; 0 where there is none."""
    found = fleet.get("/v1/servers")["servers"]
    return max((led["term"] for view in found for led in view["leads"]), default=0)


def _refused(server: Server) -> httpx2.Response | None:
    answer = server.http.post("/v1/jobs/nothing/cancel", json={}, timeout=30)
    return answer if answer.status_code == 503 else None


def _sleep_through_the_session(fleet: Several, stamps: Stamps) -> None:
    """Of the leader with ZooKeeper. Another one leads by then; the sleeper holds nothing when it wakes."""
    assert fleet.ensemble is not None
    ensemble, asleep, others = fleet.ensemble, fleet.leader(), fleet.followers()
    before = len(fleet.servers)
    until(lambda: ensemble.leader().sessions == before, "each server to have one session")
    asleep.signal(signal.SIGSTOP)
    try:
        until(lambda: ensemble.leader().sessions < before, "its session to expire")
        _submit_at(fleet, others[0], stamps, "asleep")
    finally:
        asleep.signal(signal.SIGCONT)
    until(lambda: _leader_of([asleep]) not in (None, asleep.address), "it to follow the other")
    until(lambda: ensemble.leader().sessions == before, "it to have another session")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_submissions_with_a_key_are_taken_once_over_kills() -> None:
    """As many as TOWLINE_KILLS says; 200 take some minutes."""
    with running(environ={**QUICK, "TOWLINE_LEADERSHIP_LEASE": "1s"}) as fleet:
        begun_s = time.monotonic()
        count = _submit_over_kills(fleet)
        took_s = time.monotonic() - begun_s
        print(f"{SAMPLES} kills of leaders in {took_s:.0f} s, {count} keys: none lost, none doubled")  # noqa: T201


def _submit_over_kills(fleet: Several) -> int:
    """Four users submit at any server again and again while leaders are killed. Returns how many keys were
    taken."""
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
            term, leader = _term(fleet), fleet.leader()
            leader.kill()
            leader.start(fleet.environ)
            until(lambda term=term: _term(fleet) > term, "somebody to lead, perhaps its next life")
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
    return sum(map(bool, taken.values()))
