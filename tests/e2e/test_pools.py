"""Two pools on two servers: each pool has its leader, any server takes any request, and the pools move when
servers come and go."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.e2e.fleet import Stamps
from tests.e2e.home import until
from tests.e2e.several import Several

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
]


@pytest.fixture(scope="module")
def stamps(tmp_path_factory: pytest.TempPathFactory) -> Stamps:
    return Stamps(tmp_path_factory.mktemp("pools") / "stamps")


@pytest.fixture(scope="module")
def two(stamps: Stamps) -> Iterator[Several]:
    """Pools ``default`` and ``east``, with a node each, ``n1`` and ``e1``."""
    made = Several(count=2, mounts=str(stamps.folder))
    try:
        made.serve()
        made.make_pool("east")
        made.join("n1")
        made.joining = "east"
        made.join("e1")
        yield made
    finally:
        made.close()


def test_pools_spread_over_servers_and_any_server_takes_any_request(two: Several) -> None:
    until(lambda: len({server.name for server in two.leaders().values()}) == 2, "each server to lead a pool")
    answers = [server.http.get("/v1/pools").json()["pools"] for server in two.servers]
    for pools in answers:
        assert [(view["pool"], view["nodes"], view["jobs"]) for view in pools] == [
            ("default", 1, 0), ("east", 1, 0)
        ]  # fmt: skip
    assert len({view["leader"] is not None and view["address"] for view in answers[0]}) == 2
    for server in two.servers:
        views = two.views(server)
        assert sorted(led["pool"] for view in views for led in view["leads"]) == ["default", "east"]
        nodes = server.http.get("/v1/nodes").json()["nodes"]
        assert sorted((node["name"], node["pool"], node["state"]) for node in nodes) == [
            ("e1", "east", "ready"), ("n1", "default", "ready")
        ]  # fmt: skip
        assert [node["name"] for node in server.http.get("/v1/nodes?pool=east").json()["nodes"]] == ["e1"]
        assert sorted(one["name"] for one in server.http.get("/v1/usage").json()["nodes"]) == ["e1", "n1"]


def test_a_job_runs_in_its_pool_whoever_is_asked(two: Several, stamps: Stamps) -> None:
    for number, server in enumerate(two.servers):
        for pool, node in ((None, "n1"), ("east", "e1")):
            task = stamps.task("n1", "e1", lasts_s=0.2)
            document = {"name": f"of-{node}-{number}", "tasks": {"a": task}}
            body = {"document": {**document, **({} if pool is None else {"pool": pool})}}
            made = server.http.post("/v1/jobs", json=body)
            assert made.status_code == 201, made.text
            job = made.json()
            assert job["pool"] == (pool or "default")
            for other in two.servers:
                done = other.http.get(f"/v1/jobs/{job['id']}/wait").json()
                assert (done["state"], done["pool"]) == ("succeeded", pool or "default"), done
                logs = other.http.get(f"/v1/jobs/{job['id']}/tasks/a/elements/0/logs")
                assert logs.status_code == 200 and logs.text
                assert other.http.get(f"/v1/jobs/{job['id']}/why").status_code == 200
                events = other.http.get(f"/v1/jobs/{job['id']}/events")
                assert "job.ended" in events.text
            (attempt,) = two.attempts(job["id"], "a")
            names = {one["id"]: one["name"] for one in two.get("/v1/nodes")["nodes"]}
            assert names[attempt["node"]] == node
    listed = [job["name"] for job in two.get("/v1/jobs")["jobs"]]
    assert listed == ["of-e1-1", "of-n1-1", "of-e1-0", "of-n1-0"]
    first = two.get("/v1/jobs", limit=3)
    rest = two.get("/v1/jobs", limit=3, cursor=first["next_cursor"])
    assert [job["name"] for job in [*first["jobs"], *rest["jobs"]]] == listed


def test_queues_and_drains_are_of_one_pool(two: Several) -> None:
    asked = two.servers[0].http
    assert asked.put("/v1/queues/night?pool=east", json={"weight": 3}).status_code == 200
    names = [queue["name"] for queue in two.get("/v1/queues", pool="east")["queues"]]
    assert names == ["default", "night"]
    assert [queue["name"] for queue in two.get("/v1/queues")["queues"]] == ["default"]
    for server in two.servers:
        drained = server.http.post("/v1/nodes/e1/drain", json={})
        assert (drained.status_code, drained.json()["pool"]) == (200, "east"), drained.text
        assert server.http.post("/v1/nodes/e1/undrain").json()["state"] == "ready"
    for path in ("/v1/queues?pool=north", "/v1/pools/north", "/v1/nodes?pool=north"):
        refused = asked.get(path)
        assert refused.status_code == 404 and "there are default, east" in refused.text


def test_whoever_is_asked_garbage_is_collected_in_all_pools(two: Several) -> None:
    """Also where the one that is asked passes it on to the leader of one, who asks for the others."""
    for server in two.servers:
        for query in ({}, {"pool": "default"}, {"pool": "east"}):
            answer = server.http.post("/v1/gc", json={"dry_run": True}, params=query)
            assert answer.status_code == 200 and answer.json()["jobs"] == 0, answer.text


def test_a_pool_that_is_not_there_is_refused_with_those_that_are(two: Several) -> None:
    for server in two.servers:
        body = {"document": {"name": "j", "pool": "north", "tasks": {"a": {"image": "x"}}}}
        refused = server.http.post("/v1/jobs", json=body)
        assert refused.status_code == 422, refused.text
        (problem,) = refused.json()["problems"]
        assert problem["where"] == "pool" and "'north'" in problem["message"]
        assert "default, east" in problem["remedy"]
    again = two.servers[1].http.post("/v1/pools", json={"pool": "east"})
    assert again.status_code == 409
    for name in ("any", "", "a b", "x" * 100, "../x"):
        assert two.servers[0].http.post("/v1/pools", json={"pool": name}).status_code == 400


def test_any_pool_is_one_in_which_the_job_fits(two: Several, stamps: Stamps) -> None:
    """By what it asks for, and then by what is free."""
    for node, pool in (("n1", "default"), ("e1", "east")):
        job = two.submit("fits", pool="any", a=stamps.task(node, lasts_s=0.1))
        assert two.get(f"/v1/jobs/{job}/wait")["pool"] == pool
    full = two.submit("full", pool="east", a={**stamps.task("e1"), "resources": {"cpu": _cpus(two, "e1")}})
    until(lambda: [each["state"] for each in two.attempts(full, "a")] == ["running"], "east to be full")
    for _ in range(3):
        job = two.submit("where-room-is", pool=["east", "default"], a=stamps.task("n1", "e1", lasts_s=0.1))
        assert two.get(f"/v1/jobs/{job}")["pool"] == "default"
    assert two.ask("POST", f"/v1/jobs/{full}/cancel", json={"kill": True}).status_code == 200


def test_a_key_is_one_job_whichever_pool_it_went_to(two: Several, stamps: Stamps) -> None:
    """Also where the same comes many times at once, at both servers."""
    task = stamps.task("n1", "e1", lasts_s=0.05)
    body = {"document": {"name": "once", "pool": "any", "tasks": {"a": task}}}

    def send(number: int) -> tuple[int, Any]:
        server = two.servers[number % 2]
        while True:
            headers = {"idempotency-key": f"once-{number // 8}"}
            answer = server.http.post("/v1/jobs", json=body, headers=headers)
            if answer.status_code != 503:
                return number // 8, answer.json()["id"]
            time.sleep(0.01)

    with ThreadPoolExecutor(16) as hands:
        found = list(hands.map(send, range(80)))
    jobs = {key: {job for its, job in found if its == key} for key in range(10)}
    assert all(len(ids) == 1 for ids in jobs.values()), jobs
    pools = Counter(two.get(f"/v1/jobs/{job}/wait")["pool"] for (job,) in jobs.values())
    assert sum(pools.values()) == 10


def test_pools_move_when_servers_come_and_go_and_what_runs_goes_on(two: Several, stamps: Stamps) -> None:
    jobs = {
        pool: two.submit(f"long-{pool}", pool=pool, long=stamps.task(node, on_disconnect="stop"))
        for pool, node in (("default", "n1"), ("east", "e1"))
    }
    for job in jobs.values():
        until(lambda job=job: [at["state"] for at in two.attempts(job, "long")] == ["running"], "it to run")
    until(lambda: len(set(two.leaders().values())) == 2, "each server to lead a pool")
    killed = two.leaders()["east"]
    killed.kill()
    (other,) = (server for server in two.servers if server is not killed)
    until(lambda: list(two.leaders().values()) == [other, other], "the other server to lead both")
    for pool, node in (("default", "n1"), ("east", "e1")):
        short = two.submit("short", pool=pool, a=stamps.task(node, lasts_s=0.1))
        assert two.get(f"/v1/jobs/{short}/wait")["state"] == "succeeded"
    killed.start(two.environ)
    until(lambda: two._says_ready(killed), "it to be back")
    until(lambda: len(set(two.leaders().values())) == 2, "one pool to move back")
    for pool in ("default", "east"):
        short = two.submit("short", pool=pool, a=stamps.task("n1", "e1", lasts_s=0.1))
        assert two.get(f"/v1/jobs/{short}/wait")["state"] == "succeeded"
    stamps.end("long")
    for job in jobs.values():
        assert two.get(f"/v1/jobs/{job}/wait")["state"] == "succeeded"
        assert [attempt["number"] for attempt in two.attempts(job, "long")] == [1]


def test_a_node_that_is_forgotten_may_join_another_pool(two: Several, stamps: Stamps) -> None:
    two.joining = "default"
    (machine,) = two.join("m1")
    assert _pool_of(two, "m1") == "default"
    assert machine.agent is not None
    assert two.ask("DELETE", "/v1/nodes/m1?force=true").status_code == 200
    machine.agent.wait(30)
    two.joining = "east"
    subprocess.run(["rm", "-r", str(machine.home / "node" / "membership")], check=True)
    two.start(machine)
    assert _pool_of(two, "m1") == "east"
    job = two.submit("there", pool="east", a=stamps.task("m1", lasts_s=0.1))
    assert two.get(f"/v1/jobs/{job}/wait")["state"] == "succeeded"


def _cpus(two: Several, node: str) -> float:
    return float(next(one["cpu"] for one in two.get("/v1/nodes")["nodes"] if one["name"] == node))


def _pool_of(two: Several, node: str) -> Any:
    return next(one["pool"] for one in two.get("/v1/nodes")["nodes"] if one["name"] == node)
