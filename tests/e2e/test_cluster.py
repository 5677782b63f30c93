"""A cluster at the terminal: a server, two nodes that join with links, contexts, drains, and who did what."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.agents import Cluster
from tests.e2e.home import Home, Maker, until


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="tow-"))
    made = Cluster(folder, tmp_path)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


def test_two_nodes_join_and_run_what_a_user_submits_from_elsewhere(cluster: Cluster, script: Maker) -> None:
    server = cluster.serve()
    agents = [cluster.join(name) for name in ("n1", "n2")]
    token = cluster.admin.json("token", "create", "ada", "--role", "submitter")["token"]
    link = cluster.admin.json("token", "create", "--join")["link"]
    fingerprint = link.rpartition("ca=")[2]
    user = cluster.user
    added = user.tow("context", "add", "lab", "--server", cluster.url, "--ca", fingerprint, input=token)
    assert "token ada, submitter" in added.stderr
    assert token not in added.stderr + added.stdout
    tasks = {
        "say": script("echo on $(hostname) $TOW_INDEX", array=6),
        "end": script("echo end", needs=["say"]),
    }
    done = user.run(tasks)
    assert done["state"] == "succeeded"
    assert user.tow("logs", f"{done['id']}/say.3").stdout.endswith(" 3\n")
    assert "asks for the role admin" in user.tow("drain", "n1", status=2).stderr
    assert "n2" in user.tow("nodes").stdout

    # One node is drained, with a deadline at once: its work goes on with the other.
    job = user.submit({"s": script("sleep 600", array=4, resources={"cpu": 0.1})}, name="long")
    until(lambda: user.json("job", job)["counts"]["active"] == 4, "all four to run")
    cluster.admin.tow("drain", "n1", "--deadline", "1ms", "--wait")
    until(lambda: cluster.admin.json("node", "n2")["active"] == 4, "all four to run on n2")
    assert cluster.state("n1") == "draining"
    assert user.json("job", job)["counts"]["active"] == 4

    # The server dies and comes back: nodes and what they run stay.
    server.kill()
    server.wait()
    cluster.serve()
    until(lambda: cluster.admin.json("node", "n2")["state"] == "ready", "n2 to be back")
    assert cluster.admin.json("node", "n2")["active"] == 4
    user.tow("cancel", job, "--kill")
    user.tow("wait", job, status=1)

    # A node that is gone is forgotten, and its certificate opens nothing any more.
    until(lambda: cluster.state("n1") != "disconnected", "n1 to be back")
    assert "is connected" in cluster.admin.tow("node", "forget", "n1", status=2).stderr
    agents[0].send_signal(signal.SIGTERM)
    agents[0].wait()
    until(lambda: cluster.state("n1") == "disconnected", "n1 to be gone")
    cluster.admin.tow("node", "forget", "n1")
    assert cluster.state("n1") is None
    assert user.tow("logs", f"{done['id']}/say.3").stdout.endswith(" 3\n"), "it was shipped, whoever ran it"
    assert "0 jobs would be removed" in cluster.admin.tow("gc", "--dry-run").stdout
    assert "asks for the role admin" in user.tow("gc", status=2).stderr
    # One in the wrong hands is cut off while it is connected.
    cluster.admin.tow("node", "forget", "n2", "--force")
    assert cluster.state("n2") is None
    agents[1].wait()
    entries: list[dict[str, Any]] = cluster.admin.json("audit", "-n", "200")["entries"]
    told = {(entry["who"], entry["action"], entry["status"]) for entry in entries}
    assert ("token ada", "POST /v1/jobs", 201) in told
    assert ("token ada", "POST /v1/nodes/{node}/drain", 403) in told
    assert ("local", "DELETE /v1/nodes/{node}", 200) in told


def test_what_is_wrong_with_joining_and_contexts_is_named(cluster: Cluster) -> None:
    cluster.serve()
    fingerprint = cluster.admin.json("token", "create", "--join")["link"].rpartition("ca=")[2]
    user = cluster.user
    add = ("context", "add", "lab", "--server", cluster.url)
    for arguments, given, words in (
        ((*add, "--ca", "sha256:" + "0" * 64), "x", "another cluster"),
        ((*add, "--ca", fingerprint), "tow_x", "Show a token"),
        ((*add, "--ca", "/nonexistent"), "x", "cannot be read"),
        (("context", "add", "l", "--server", "http://x", "--ca", fingerprint), "x", "https://HOST:PORT"),
        (("context", "use", "lab"), "", "no context 'lab'"),
        (("agent",), "", "tow token create --join"),
        (("agent", "--join", "tow://x"), "", "token is missing"),
    ):
        answer = user.tow(*arguments, status=2, input=given)
        assert words in answer.stderr, answer.stderr
        assert "Traceback" not in answer.stderr
    unsafe = cluster.admin.tow("token", "create", "--join", "--address", "x';true;'", status=2)
    assert "write HOST:PORT" in unsafe.stderr
    second = cluster.admin.tow("server", "--listen", "127.0.0.1:1", status=2)
    assert "runs already" in second.stderr
    other = Home(cluster.folder / "o", cluster.user.work)
    taken = other.tow("server", "--listen", f"127.0.0.1:{cluster.port}", status=2)
    assert "cannot listen on 127.0.0.1" in taken.stderr
    assert not (other.path / "cluster").exists()
