"""Pools at the terminal: made and shown, joined by nodes, named by jobs, queues and links."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.agents import Cluster
from tests.e2e.home import Home, Maker


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A server with the pool gpu beside that of the start, and a node in each."""
    folder = Path(tempfile.mkdtemp(prefix="tow-"))
    made = Cluster(folder, tmp_path_factory.mktemp("work"))
    try:
        made.serve()
        said = made.admin.tow("pool", "create", "gpu")
        assert "tow token create --join --pool gpu" in said.stderr and said.stdout == ""
        made.join("n1")
        made.join("g1", "--pool", "gpu")
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)


@pytest.fixture
def admin(cluster: Cluster) -> Home:
    return cluster.admin


def lines(home: Home, *arguments: str) -> list[list[str]]:
    """A table, in words."""
    return [line.split() for line in home.tow(*arguments).stdout.splitlines()]


def test_pools_are_made_and_shown(admin: Home) -> None:
    header, first, second = lines(admin, "pool", "ls")
    assert " ".join(header) == "POOL LEADER TERM NODES CPU FREE MEMORY FREE GPUS JOBS ACTIVE QUEUED"
    assert first[0] == "default" and second[0] == "gpu"
    assert first[2:4] == second[2:4] == ["1", "1"], (first, second)
    assert admin.tow("pool", "list").stdout.splitlines()[0].split() == header
    views = admin.json("pool", "ls")["pools"]
    assert [(view["pool"], view["nodes"], view["queued"]) for view in views] == [
        ("default", 1, 0),
        ("gpu", 1, 0),
    ]
    assert admin.json("pool", "show", "gpu") == views[1]
    assert views[0]["since"] < views[1]["since"]
    (server,) = admin.json("servers")["servers"]
    assert [(led["pool"], led["since"]) for led in server["leads"]] == [
        (view["pool"], view["since"]) for view in views
    ]
    assert ["pool:", "gpu"] in lines(admin, "pool", "show", "gpu")
    for arguments, words in (
        (("show", "gqu"), "There is no pool 'gqu': there are default, gpu."),
        (("create", "gpu"), "There is a pool gpu already."),
        (("create", "any"), "neither any nor cluster"),
        (("create", "a b"), "a pool's name is 1 to 63"),
    ):
        assert words in admin.tow("pool", *arguments, status=2).stderr


def test_nodes_and_jobs_tell_their_pool_where_there_are_several(admin: Home, script: Maker) -> None:
    assert lines(admin, "nodes")[0][:2] == ["NODE", "POOL"]
    assert {tuple(row[:2]) for row in lines(admin, "nodes")[1:]} == {("n1", "default"), ("g1", "gpu")}
    assert [row[0] for row in lines(admin, "nodes", "--pool", "gpu")] == ["NODE", "g1"]
    assert "POOL" not in lines(admin, "nodes", "--pool", "gpu")[0]
    assert admin.json("node", "g1")["pool"] == "gpu"
    assert ["pool", "gpu"] in lines(admin, "node", "g1", "--pool", "gpu")
    assert "g1" in admin.tow("node", "g1", "--pool", "default", status=2).stderr

    there = admin.json("run", admin.job_file({"t": script("true")}, "there"), "--pool", "gpu")
    here = admin.run({"t": script("true")}, name="here")
    assert (there["pool"], here["pool"]) == ("gpu", "default")
    ids = {node["id"]: node["name"] for node in admin.json("nodes")["nodes"]}
    (attempt,) = there["tasks"][0]["elements"][0]["attempts"]
    assert ids[attempt["node"]] == "g1"
    rows = {row[0]: row[2] for row in lines(admin, "jobs")[1:]}
    assert lines(admin, "jobs")[0][:3] == ["ID", "NAME", "POOL"]
    assert (rows[there["id"]], rows[here["id"]]) == ("gpu", "default")
    assert "POOL" not in lines(admin, "jobs", "-n", "1")[0]
    assert ["pool:", "gpu"] in lines(admin, "job", there["id"])


def test_a_command_of_an_image_or_none_goes_into_the_pool_that_is_named(admin: Home) -> None:
    done = admin.tow("run", "--runtime", "process", "--name", "named", "--pool", "gpu", "--", "echo", "hello")
    assert done.stdout == "hello\n"
    assert admin.json("job", "named")["pool"] == "gpu"


def test_a_job_leaves_its_pool_open(admin: Home, script: Maker) -> None:
    """Only one of them has a node with what it asks for."""
    task = script("true", where={"node": ["g1"]})
    assert admin.run({"t": task}, name="anywhere", pool="any")["pool"] == "gpu"
    file = admin.job_file({"t": task}, "one-of", pool="default")
    assert admin.json("run", file, "--pool", "default,gpu")["pool"] == "gpu"
    assert admin.json("plan", file, "--pool", "any")["pool"] == "gpu"
    assert admin.tow("plan", file, "--pool", "any").stdout.splitlines()[0] == "pool: gpu"
    job = admin.tow("submit", file, "--pool", "any", "--key", "once").stdout
    assert admin.tow("submit", file, "--pool", "any", "--key", "once").stdout == job
    admin.tow("wait", job.strip())


def test_queues_are_of_one_pool(admin: Home, script: Maker) -> None:
    assert admin.json("queue", "create", "lab", "--pool", "gpu", "--weight", "3")["pool"] == "gpu"
    assert [view["name"] for view in admin.json("queue", "ls")["queues"]] == ["default"]
    assert [row[0] for row in lines(admin, "queue", "ls", "--pool", "gpu")] == ["QUEUE", "default", "lab"]
    assert admin.json("queue", "set", "lab", "--pool", "gpu", "--max-active", "2")["max_active"] == 2
    assert ["pool:", "gpu"] in lines(admin, "queue", "show", "lab", "--pool", "gpu")
    assert "lab" in admin.tow("queue", "show", "lab", status=2).stderr
    ran = admin.run({"t": script("true")}, name="in-lab", pool="gpu", queue="lab")
    assert (ran["queue"], ran["pool"]) == ("lab", "gpu")
    admin.tow("queue", "rm", "lab", "--pool", "gpu")
    assert [view["name"] for view in admin.json("queue", "ls", "--pool", "gpu")["queues"]] == ["default"]


def test_what_is_asked_of_a_pool_is_of_it(admin: Home, script: Maker) -> None:
    admin.json("run", admin.job_file({"t": script("true")}, "told"), "--pool", "gpu")
    told = admin.tow("events", "export", "--pool", "gpu").stdout
    assert '"pool":"gpu"' in told.splitlines()[0] and '"name":"told"' in told
    assert '"name":"told"' not in admin.tow("events", "export").stdout
    assert [node["name"] for node in admin.json("top", "--pool", "gpu", "-d", "0.1")["nodes"]] == ["g1"]
    everywhere = admin.json("top", "-d", "0.1")["nodes"]
    assert sorted(node["name"] for node in everywhere) == ["g1", "n1"]
    assert "a job has its own pool" in admin.tow("top", "told", "--pool", "gpu", status=2).stderr
    assert admin.json("image", "ls", "--pool", "gpu") == {"images": []}
    assert admin.json("image", "gc", "--node", "g1", "--pool", "gpu")["removed"] == []
    for command in (("ls",), ("pull", "oci:none:1"), ("rm", "none"), ("gc",)):
        assert "g1" in admin.tow("image", *command, "--node", "g1", "--pool", "default", status=None).stderr
    assert (
        admin.json(
            "drain",
            "g1",
            "--pool",
            "gpu",
        )["state"]
        == "draining"
    )
    assert admin.json("undrain", "g1", "--pool", "gpu")["state"] == "ready"


def test_join_links_say_their_pool(admin: Home) -> None:
    made = admin.json("token", "create", "--join", "--pool", "gpu", "--address", "tow.lan")
    assert made["pool"] == "gpu"
    assert [one["pool"] for one in admin.json("token", "ls")["joins"]] == ["gpu"]
    assert "join link of gpu" in admin.tow("token", "ls").stdout
    said = admin.tow("token", "create", "--join", "--address", "tow.lan").stderr
    assert "a node of the pool default" in said
    for view in admin.json("token", "ls")["joins"]:
        admin.tow("token", "rm", view["id"])
    assert (
        "or --join"
        in admin.tow("token", "create", "ada", "--role", "viewer", "--pool", "gpu", status=2).stderr
    )


def test_an_unknown_pool_is_named_with_those_that_are_there(admin: Home, script: Maker) -> None:
    file = admin.job_file({"t": script("true")}, "nowhere")
    for arguments in (
        ("run", file),
        ("submit", file),
        ("plan", file),
        ("run", "--runtime", "process"),
        ("queue", "ls"),
        ("queue", "create", "x"),
        ("nodes",),
        ("top",),
        ("image", "ls"),
        ("events", "export"),
        ("token", "create", "--join"),
    ):
        tail = ("--", "true") if "--runtime" in arguments else ()
        answer = admin.tow(*arguments, "--pool", "gqu", *tail, status=2)
        assert "there is no pool 'gqu'" in answer.stderr.lower(), answer.stderr
        assert "default, gpu" in answer.stderr, answer.stderr
    for wrong, words in (
        ("a b", "a pool's name is"),
        ("any,gpu", "any beside other pools"),
        ("", "pool is ''"),
    ):
        assert words in admin.tow("submit", file, "--pool", wrong, status=2).stderr


def test_a_machine_changes_its_pool_as_a_new_node(cluster: Cluster, script: Maker) -> None:
    admin = cluster.admin
    agent = cluster.join("m1")
    before = admin.json("node", "m1")
    assert before["pool"] == "default"
    task = script("true", where={"node": ["m1"]})
    assert admin.run({"t": task}, name="before")["state"] == "succeeded"
    admin.tow("drain", "m1", "--wait")
    admin.tow("node", "forget", "m1", "--force")
    agent.wait(60)
    cluster.join("m1", "--pool", "gpu")
    assert admin.json("node", "m1")["pool"] == "gpu"
    ran = admin.run({"t": task}, name="after", pool="any")
    assert (ran["state"], ran["pool"]) == ("succeeded", "gpu")
    assert admin.json("job", "before")["pool"] == "default"
    assert [row[0] for row in lines(admin, "nodes", "--pool", "default")[1:]] == ["n1"]


def test_the_example_runs_wherever_it_fits(admin: Home) -> None:
    example = Path(__file__).parents[2] / "examples" / "pools" / "job.yaml"
    assert admin.tow("plan", str(example)).stdout.startswith("pool: ")
    job = admin.json("run", str(example))
    assert (job["state"], job["counts"]) == ("succeeded", {**job["counts"], "succeeded": 9})
    assert admin.tow("logs", f"{job['id']}/sum").stdout == "140\n"


@pytest.mark.one_machine("of one machine alone")
def test_one_machine_alone_is_one_pool(home: Home, script: Maker) -> None:
    assert home.run({"t": script("true")}, name="any", pool="any")["pool"] == "default"
    (view,) = home.json("pool", "ls")["pools"]
    assert (view["pool"], view["nodes"], view["term"] > 0) == ("default", 1, True)
    assert home.json("pool", "show", "default")["leader"] == view["leader"]
    assert "`tow server`" in home.tow("pool", "create", "gpu", status=2).stderr
    for arguments in (("nodes",), ("queue", "ls"), ("run", "--runtime", "process")):
        tail = ("--", "true") if "run" in arguments else ()
        refused = home.tow(*arguments, "--pool", "gpu", *tail, status=2).stderr
        assert "here is no pool 'gpu'" in refused, refused
