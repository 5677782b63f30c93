"""Three servers on one PostgreSQL, with nodes in network namespaces: any of them takes any request, one
leads, and whatever happens to it, another one goes on.

What tasks did is told by the files that they write; ``history.judge`` holds every promise against them.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.fleet import Stamps
from tests.e2e.history import judge, settled
from tests.e2e.home import until
from tests.e2e.several import Server, Several

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
]
NODES = ("n1", "n2")
SAMPLES = int(os.environ.get("TOWLINE_KILLS") or 3)
"""Leaders that are killed one after the other."""


@pytest.fixture
def stamps(tmp_path: Path) -> Stamps:
    return Stamps(tmp_path / "stamps")


@pytest.fixture
def fleet(stamps: Stamps) -> Iterator[Several]:
    made = Several(mounts=str(stamps.folder))
    try:
        made.serve()
        made.join(*NODES)
        yield made
    finally:
        made.close()


def _ended(fleet: Several, *jobs: str) -> None:
    until(lambda: all(fleet.get(f"/v1/jobs/{job}")["ended_at"] for job in jobs), "all to end")


def _kept_all(fleet: Several, stamps: Stamps, *jobs: str) -> None:
    assert judge(settled(fleet, stamps, jobs)) == []


def _placed_after(fleet: Several, stamps: Stamps, name: str) -> float:
    """Submit a short task, and wait until it lives: in seconds."""
    begun_s = time.monotonic()
    fleet.submit(name, key=name, **{name: stamps.task(*NODES, lasts_s=0.1)})
    until(lambda: stamps.of(name, 1), f"{name} to be placed")
    return time.monotonic() - begun_s


def test_any_server_takes_any_request(fleet: Several, stamps: Stamps) -> None:
    leader = fleet.leader()
    first, second = fleet.followers()
    task = stamps.task(*NODES, lasts_s=1.0)
    body = {"document": {"name": "one", "tasks": {"a": task}}, "params": {}, "base_dir": None}
    answers = [
        server.http.post("/v1/jobs", json=body, headers={"idempotency-key": "one"})
        for server in (first, second, leader)
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    (job,) = {answer.json()["id"] for answer in answers}

    # Events are followed at one that does not lead, to the end.
    kinds: list[str] = []
    with second.http.stream("GET", f"/v1/jobs/{job}/events") as events:
        for line in events.iter_lines():
            if line.startswith("data: "):
                kinds += [event["kind"] for event in json.loads(line.removeprefix("data: "))]
    assert kinds[0] == "job.submitted" and kinds[-1] == "job.ended"
    assert first.http.get(f"/v1/jobs/{job}/wait").json()["state"] == "succeeded"

    # Opinions and what is on the nodes come from the leader, whoever is asked.
    for server in (first, second, leader):
        assert [node["state"] for node in server.http.get("/v1/nodes").json()["nodes"]] == ["ready"] * 2
        logs = server.http.get(f"/v1/jobs/{job}/tasks/a/elements/0/logs", params={"stream": "stdout"})
        said = b"".join(base64.b64decode(json.loads(line)["data"]) for line in logs.text.splitlines())
        assert said.startswith(b"0\n1\n")
        assert server.http.get("/v1/jobs/nothing").status_code == 404
        assert server.http.get("/v1/nothing").status_code == 404
    assert len(first.http.get("/v1/usage").json()["nodes"]) == 2

    # Who they are, and who leads.
    for server in fleet.servers:
        views = fleet.views(server)
        assert [view["address"] for view in views if view["asked"]] == [server.address]
        assert sorted(view["address"] for view in views) == sorted(one.address for one in fleet.servers)
        (leading,) = [view for view in views if view["leads"]]
        assert leading["address"] == leader.address
        assert leading["leads"][0]["pool"] == "default" and leading["leads"][0]["term"] == 1
        assert all(view["live"] for view in views)


def test_a_token_is_good_and_taken_back_at_every_server(fleet: Several) -> None:
    """And the audit names where the caller is, not the server that has passed its request on."""
    first, second = fleet.followers()
    made = first.http.post("/v1/tokens", json={"name": "ada", "role": "submitter"})
    assert made.status_code == 201, made.text
    token = made.json()["token"]
    machine = fleet.machines["n1"]

    def ask(server: Server, method: str, path: str) -> int:
        """From a node's network, over TLS."""
        import subprocess

        from towline.cli.dev.network import entered

        script = (
            "import ssl,sys,urllib.request as u\n"
            "context = ssl._create_unverified_context()\n"
            "request = u.Request(sys.argv[1], method=sys.argv[2], headers={'authorization': sys.argv[3]},"
            " data=b'{}' if sys.argv[2] == 'POST' else None)\n"
            "try: print(u.urlopen(request, context=context, timeout=20).status)\n"
            "except u.HTTPError as error: print(error.code)\n"
        )
        command = [*entered(machine.space), "python3", "-c", script, f"{server.url}{path}", method]
        done = subprocess.run([*command, f"Bearer {token}"], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert [ask(server, "GET", "/v1/whoami") for server in fleet.servers] == [200] * 3
    assert ask(second, "POST", "/v1/jobs/nothing/cancel") == 404
    entries = first.http.get("/v1/audit").json()["entries"]
    (entry,) = [one for one in entries if one["action"] == "POST /v1/jobs/{job}/cancel"]
    assert (entry["who"], entry["source"]) == ("token ada", fleet._network.address_of(machine.space))
    (entry,) = [one for one in entries if one["action"] == "POST /v1/tokens"]
    assert entry["who"] == "local" and entry["source"].startswith("socket of ")
    assert second.http.delete("/v1/tokens/ada").status_code == 200
    for server in fleet.servers:
        until(lambda server=server: ask(server, "GET", "/v1/whoami") == 401, "it to be worth nothing")


def test_a_killed_leader_is_followed_by_another(fleet: Several, stamps: Stamps) -> None:
    long = fleet.submit(
        "long",
        key="long",
        kept=stamps.task(*NODES, on_disconnect="keep"),
        leased=stamps.task(*NODES, on_disconnect="stop"),
    )
    until(lambda: stamps.of("kept", 1) and stamps.of("leased", 1), "both to run")
    jobs, took_s = [long], []
    for number in range(SAMPLES):
        before = fleet.leader()
        before.kill()
        took_s.append(_placed_after(fleet, stamps, f"after{number}"))
        after = fleet.leader()
        assert after is not before
        before.start(fleet.environ)
        until(lambda before=before: fleet._says_ready(before), "the killed one to be back")
    print(f"placed after {sorted(round(one, 2) for one in took_s)} s")  # noqa: T201
    stamps.end()
    jobs = [job["id"] for job in fleet.get("/v1/jobs")["jobs"]]
    _ended(fleet, *jobs)
    assert stamps.attempts("kept") == [1] and stamps.attempts("leased") == [1]
    _kept_all(fleet, stamps, *jobs)


def test_a_frozen_leader_is_refused_when_it_wakes_and_follows(fleet: Several, stamps: Stamps) -> None:
    job = fleet.submit("one", leased=stamps.task(*NODES, on_disconnect="stop"))
    until(lambda: stamps.of("leased", 1), "it to run")
    frozen = fleet.leader()
    frozen.signal(signal.SIGSTOP)
    try:
        others = [server for server in fleet.servers if server is not frozen]
        asked = threading.Thread(target=_ask_of_all, args=(others,))
        asked.start()  # whatever waits for the frozen one is answered, if with 503
        asked.join(30)
        assert not asked.is_alive()
        until(lambda: _leads_among(others), "another one to lead")
        placed = fleet_submit_at(others, stamps)
    finally:
        frozen.signal(signal.SIGCONT)
    until(lambda: "stepping down" in frozen.log or "run out" in frozen.log, "the frozen one to step down")
    until(lambda: _leads_among([frozen]) not in (None, frozen.address), "it to follow the other")
    assert frozen.http.post("/v1/jobs/nothing/cancel", json={}).status_code == 404  # which the leader says
    stamps.end()
    _ended(fleet, job, placed)
    assert stamps.attempts("leased") == [1]
    fleet.submitted[placed] = {"later": stamps.task(*NODES, lasts_s=0.1)}
    _kept_all(fleet, stamps, job, placed)


def _ask_of_all(servers: list[Server]) -> None:
    for server in servers:
        assert server.http.get("/v1/nodes", timeout=30).status_code in (200, 503)


def _leads_among(servers: list[Server]) -> str | None:
    """The address of the leader, as these see it, where that is one that is not frozen."""
    for server in servers:
        for view in server.http.get("/v1/servers").json()["servers"]:
            if view["leads"] and view["live"]:
                return str(view["address"])
    return None


def fleet_submit_at(servers: list[Server], stamps: Stamps) -> str:
    task = stamps.task(*NODES, lasts_s=0.1)
    body = {"document": {"name": "later", "tasks": {"later": task}}, "params": {}, "base_dir": None}

    def submit() -> str | None:
        answer = servers[0].http.post("/v1/jobs", json=body, headers={"idempotency-key": "later"})
        return str(answer.json()["id"]) if answer.status_code in (200, 201) else None

    job = until(submit, "a submission to be taken")
    until(lambda: stamps.of("later", 1), "it to be placed")
    return job


def test_a_clean_stop_hands_over_within_a_second(fleet: Several, stamps: Stamps) -> None:
    job = fleet.submit("one", leased=stamps.task(*NODES, on_disconnect="stop"))
    until(lambda: stamps.of("leased", 1), "it to run")
    before = fleet.leader()
    others = fleet.followers()
    took_s = before.stop()
    until(lambda: _leads_among(others), "another one to lead")
    placed_s = _placed_after(fleet, stamps, "next")
    print(f"stopped in {took_s:.2f} s, placed {placed_s:.2f} s later")  # noqa: T201 - below 1 when quiet
    assert "longer lease" not in before.log
    assert all(view["address"] != before.address for view in fleet.views(others[0]))
    stamps.end()
    jobs = [one["id"] for one in fleet.get("/v1/jobs")["jobs"]]
    _ended(fleet, *jobs)
    assert stamps.attempts("leased") == [1]
    _kept_all(fleet, stamps, job, *jobs)


def test_a_leader_cut_off_from_the_store_lets_its_nodes_go(fleet: Several, stamps: Stamps) -> None:
    """With attempts under on_disconnect: stop, which live on through it."""
    job = fleet.submit("one", leased=stamps.task(*NODES, on_disconnect="stop"))
    until(lambda: stamps.of("leased", 1), "it to run")
    cut = fleet.leader()
    others = fleet.followers()
    cut.cut_from_store()
    until(lambda: _leads_among(others) not in (None, cut.address), "another one to lead")
    placed = fleet_submit_at(others, stamps)
    answer = cut.http.post("/v1/jobs/nothing/cancel", json={}, timeout=30)
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    cut.heal()
    until(lambda: _leads_among([cut]) not in (None, cut.address), "it to follow the other")
    stamps.end()
    _ended(fleet, job, placed)
    assert stamps.attempts("leased") == [1]
    fleet.submitted[placed] = {"later": stamps.task(*NODES, lasts_s=0.1)}
    _kept_all(fleet, stamps, job, placed)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_submissions_with_a_key_are_taken_once_over_kills(fleet: Several) -> None:
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
