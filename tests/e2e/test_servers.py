"""Three servers on one PostgreSQL, with nodes in network namespaces: one leads, and any of them takes any
request."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.fleet import Stamps
from tests.e2e.home import until
from tests.e2e.several import Server, Several, running

from towline.cli.dev.network import entered
from towline.client import Client
from towline.server.vault import KEY_FILE

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
]
NODES = ("n1", "n2")


@pytest.fixture(scope="module")
def calm_stamps(tmp_path_factory: pytest.TempPathFactory) -> Stamps:
    return Stamps(tmp_path_factory.mktemp("calm") / "stamps")


@pytest.fixture(scope="module")
def calm(calm_stamps: Stamps) -> Iterator[Several]:
    """To which nothing happens."""
    with running(*NODES, mounts=str(calm_stamps.folder)) as made:
        yield made


def test_any_server_takes_any_request(calm: Several, calm_stamps: Stamps) -> None:
    leader = calm.leader()
    first, second = calm.followers()
    task = calm_stamps.task(*NODES, lasts_s=1.0)
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
    for server in calm.servers:
        views = calm.views(server)
        assert [view["address"] for view in views if view["asked"]] == [server.address]
        assert sorted(view["address"] for view in views) == sorted(one.address for one in calm.servers)
        (leading,) = [view for view in views if view["leads"]]
        assert leading["address"] == leader.address
        assert leading["leads"][0]["pool"] == "default" and leading["leads"][0]["term"] == 1
        assert all(view["live"] for view in views)


def test_a_token_is_good_and_taken_back_at_every_server(calm: Several) -> None:
    """And the audit names where the caller is, not the server that has passed its request on."""
    first, second = calm.followers()
    made = first.http.post("/v1/tokens", json={"name": "ada", "role": "submitter"})
    assert made.status_code == 201, made.text
    token = made.json()["token"]
    machine = calm.machines["n1"]

    def ask(server: Server, method: str, path: str) -> int:
        """From a node's network, over TLS."""
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

    assert [ask(server, "GET", "/v1/whoami") for server in calm.servers] == [200] * 3
    assert ask(second, "POST", "/v1/jobs/nothing/cancel") == 404
    entries = first.http.get("/v1/audit").json()["entries"]
    (entry,) = [one for one in entries if one["action"] == "POST /v1/jobs/{job}/cancel"]
    assert (entry["who"], entry["source"]) == ("token ada", calm._network.address_of(machine.space))
    (entry,) = [one for one in entries if one["action"] == "POST /v1/tokens"]
    assert entry["who"] == "local" and entry["source"].startswith("socket of ")
    assert second.http.delete("/v1/tokens/ada").status_code == 200
    for server in calm.servers:
        until(lambda server=server: ask(server, "GET", "/v1/whoami") == 401, "it to be worth nothing")


def test_commands_and_clients_go_to_any_server(calm: Several, calm_stamps: Stamps, tmp_path: Path) -> None:
    """A command in a task through one that follows; a client that knows several goes on where one is dead."""
    job = calm.submit("long", long=calm_stamps.task(*NODES))
    until(lambda: [each["state"] for each in calm.attempts(job, "long")] == ["running"], "it to run")
    follower = calm.followers()[0]

    async def execute() -> tuple[bytes, int | None]:
        command = ["sh", "-c", "read line; echo got $line; exit 3"]
        async with (
            Client(follower.home / "tow.sock") as client,
            (await client.job(job)).exec("long", 0, command) as running,
        ):
            await running.write(b"this\n")
            said = b"".join([data.data async for data in running.output() if data.stream == 1])
            return said, None if running.ended is None else running.ended.code

    assert asyncio.run(execute()) == (b"got this\n", 3)

    # From a node's network, where the first server that is named does not exist.
    token = follower.http.post("/v1/tokens", json={"name": "bob", "role": "viewer"}).json()["token"]
    authority = tmp_path / "ca.pem"
    authority.write_text(follower.http.get("/v1/authority").text)
    dead = f"https://{calm._network.address}:9"
    told = {
        "TOWLINE_SERVER": ",".join([dead, *(server.url for server in calm.servers)]),
        "TOWLINE_TOKEN": token,
        "TOWLINE_CA": str(authority),
    }
    tow = [str(Path(sys.executable).with_name("tow")), "servers", "--json"]
    command = [*entered(calm.machines["n1"].space), *tow]
    done = subprocess.run(command, env={**os.environ, **told}, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["servers"]) == len(calm.servers)
    calm_stamps.end("long")
    until(lambda: calm.get(f"/v1/jobs/{job}")["ended_at"], "it to end")


def test_a_server_that_has_files_of_its_own_does_not_join(calm: Several) -> None:
    """What it keeps of output and artifacts the others could not read."""
    lonely = calm._make("lonely")
    shutil.copy(calm.servers[0].home / KEY_FILE, lonely.home / KEY_FILE)
    lonely.start({**calm.environ, "TOWLINE_SHARED_FILES": "false"})
    assert lonely.process is not None
    assert lonely.process.wait(60) == 2
    assert "set object_store to one that both reach" in lonely.log
    assert "leading" not in lonely.log
    assert all(calm._says_ready(server) for server in calm.servers)
