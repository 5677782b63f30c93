"""What a task wrote on one node is there on another: whoever dies meanwhile, and whatever disk is full."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.fleet import SHORT, Fleet, Machine
from tests.e2e.home import until
from tests.small_disk import SmallDisk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root")

PATIENT = {"TOWLINE_NODE_LEASE": "100s", "TOWLINE_LOST_AFTER": "120s"}
"""However long a busy machine takes for a new agent or server, nothing is to be declared lost."""
MIB = 1024**2
WRITES = f"""
import os, sys
out, attempt = os.environ["TOW_OUT"], os.environ["TOW_ATTEMPT"]
os.mkdir(f"{{out}}/d")
open(f"{{out}}/d/who", "w").write(f"attempt {{attempt}}")
os.symlink("d/who", f"{{out}}/link")
with open(f"{{out}}/large", "wb") as file:
    for number in range(int(sys.argv[1])):
        file.write(number.to_bytes(4, "big") * {MIB // 4})
"""
"""So many MiB, each of which is another one."""
READS = """
import hashlib, os
found = hashlib.sha256()
with open("in/large", "rb") as file:
    while piece := file.read(2**20):
        found.update(piece)
print(open("in/link").read(), sorted(os.listdir("in")), os.path.getsize("in/large"), found.hexdigest())
"""
COUNTS = "import os; print({name: len(os.listdir('in/' + name)) for name in sorted(os.listdir('in'))})"


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)]


def task(command: list[str], *nodes: str, **fields: Any) -> dict[str, Any]:
    resources = {"cpu": 0.1, "memory": "64Mi"}
    where = {"node": list(nodes)}
    return {"runtime": "process", "command": command, "resources": resources, "where": where, **fields}


def chain(mib: int, writers: list[str], reader: str) -> dict[str, dict[str, Any]]:
    """A task that writes so much, and one that reads it."""
    return {
        "make": task(python(WRITES, mib), *writers),
        "use": task(python(READS), reader, needs=["make"], inputs={"make": "in"}),
    }


def told(attempt: int, mib: int) -> str:
    """What the reader prints of a whole input."""
    import hashlib

    found = hashlib.sha256()
    for number in range(mib):
        found.update(number.to_bytes(4, "big") * (MIB // 4))
    return f"attempt {attempt} ['d', 'large', 'link'] {mib * MIB} {found.hexdigest()}\n"


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    made = Fleet(getattr(request, "param", PATIENT))
    try:
        yield made
    finally:
        print(made.situation())  # noqa: T201 - shown where the test fails
        made.close()


def state(fleet: Fleet, job: str) -> str:
    return str(fleet.get(f"/v1/jobs/{job}")["state"])


def ended(fleet: Fleet, job: str) -> str:
    return str(until(lambda: state(fleet, job) not in ("running",) and state(fleet, job), "the job to end"))


def stored(fleet: Fleet, job: str) -> Path:
    return fleet.home / "objects/artifacts" / job


def blobs(fleet: Fleet, job: str) -> dict[str, int]:
    """When those of the first task's attempts were written, in ns."""
    found = (stored(fleet, job) / "blobs").glob("0.0.*/*")
    return {path.name: path.stat().st_mtime_ns for path in found if len(path.name) == 64}


def freeze_amid_upload(fleet: Fleet, job: str) -> set[str]:
    """Stop the server once some blobs are there; returns which."""
    assert fleet.server is not None
    until(lambda: len(blobs(fleet, job)) >= 2, "an upload to begin")
    os.kill(fleet.server.pid, signal.SIGSTOP)
    assert not (stored(fleet, job) / "manifests").exists(), "the upload was over before it was looked at"
    return set(blobs(fleet, job))


def test_an_input_comes_from_another_node_and_is_there_for_users(fleet: Fleet) -> None:
    fleet.serve()
    first, _ = fleet.join("a", "b")
    many = (
        "import os; [open(os.environ['TOW_OUT'] + f'/{n}', 'w') for n in range(int(os.environ['TOW_INDEX']))]"
    )
    job = fleet.submit(
        "both",
        **chain(20, ["a"], "b"),
        many=task(python(many), "a", array=4),
        count=task(python(COUNTS), "b", needs=["many"], inputs={"many": "in"}),
        each=task(
            python("import os; print(os.listdir('in'))"), "b",
            array=4, needs=[{"task": "many", "each": True}], inputs={"many": "in"},
        ),
        again=task(python(READS), "b", needs=["use", "make"], inputs={"make": "in"}),
    )  # fmt: skip
    assert ended(fleet, job) == "succeeded"
    assert fleet.stdout(job, "use", 0).decode() == told(1, 20)
    assert fleet.stdout(job, "again", 0).decode() == told(1, 20)
    assert fleet.stdout(job, "count", 0) == b"{'0': 0, '1': 1, '2': 2, '3': 3}\n"
    assert [fleet.stdout(job, "each", index).count(b"'") // 2 for index in range(4)] == [0, 1, 2, 3]
    # The node is gone for good; its artifacts are not.
    first.die()
    shutil.rmtree(first.home / "node/artifacts")
    path = f"/v1/jobs/{job}/tasks/make/elements/0/artifacts"
    listed = fleet.get(path)["artifacts"]
    assert [one["path"] for one in listed] == ["d", "d/who", "large", "link"]
    content = fleet.http.get(f"{path}/content", params={"file": "large", "offset": 20 * MIB - 8}).content
    assert content[36:44] == (19).to_bytes(4, "big") * 2


@pytest.mark.containers
def test_containers_of_any_user_read_what_others_wrote(fleet: Fleet, busybox_image: str) -> None:
    fleet.serve()
    fleet.join("a", "b")

    def box(script: str, node: str, **fields: Any) -> dict[str, Any]:
        made = task(["sh", "-c", script], node, image=busybox_image, **fields)
        del made["runtime"]
        return made

    make = "umask 077; mkdir $TOW_OUT/d; echo hello > $TOW_OUT/d/x; ln -s d/x $TOW_OUT/l; mkfifo $TOW_OUT/p"
    use = "cat /in/l; ls /in; touch /in/more 2>/dev/null || echo read-only; id -u"
    inputs = {"needs": ["make"], "inputs": {"make": "/in"}}
    job = fleet.submit(
        "boxes",
        make=box(make, "a", user="1000:1000"),
        use=box(use, "b", user="2000:2000", **inputs),
        here=box(use, "a", user="1000:1000", **inputs),
    )
    assert ended(fleet, job) == "succeeded"
    assert fleet.stdout(job, "use", 0) == b"hello\nd\nl\nread-only\n2000\n"
    assert fleet.stdout(job, "here", 0) == b"hello\nd\nl\np\nread-only\n1000\n"


def test_an_upload_outlives_agent_and_server(fleet: Fleet) -> None:
    fleet.serve()
    first, _ = fleet.join("a", "b")
    job = fleet.submit("killed", **chain(200, ["a"], "b"))
    assert fleet.server is not None

    # The agent dies in the middle: the next one goes on with what is there.
    there = freeze_amid_upload(fleet, job)
    first.signal(signal.SIGKILL, "agent")
    os.kill(fleet.server.pid, signal.SIGCONT)
    assert {one["state"] for one in fleet.attempts(job, "make")} == {"running"}
    assert fleet.attempts(job, "use") == []
    before = blobs(fleet, job)
    first.start()

    # Then the server, too.
    until(lambda: len(blobs(fleet, job)) > len(before), "the upload to go on")
    there |= freeze_amid_upload(fleet, job)
    before |= {name: at for name, at in blobs(fleet, job).items() if name not in before}
    fleet.kill_server()
    fleet.serve()
    assert ended(fleet, job) == "succeeded"
    after = blobs(fleet, job)
    assert len(after) == 26
    again = [name for name in there if after[name] != before[name]]
    assert len(again) <= 3, "no more is brought again than what was under way"
    assert fleet.stdout(job, "use", 0).decode() == told(1, 200)
    assert [one["number"] for one in fleet.attempts(job, "make")] == [1]


@pytest.mark.parametrize("fleet", [SHORT], indirect=True)
def test_what_a_node_took_with_it_is_made_again(fleet: Fleet) -> None:
    """The object store takes nothing while the first one writes: nobody has it but its node."""
    (fleet.home / "objects").mkdir(mode=0o700)
    in_the_way = fleet.home / "objects/artifacts"
    in_the_way.write_text("")
    fleet.serve()
    fleet.join("a", "b", "c")
    job = fleet.submit("died", **chain(20, ["a", "b"], "c"))
    at = until(lambda: fleet.attempts(job, "make"), "it to be placed")[0]["node"]
    node: Machine = next(one for one in fleet.machines.values() if node_id(one) == at)
    log = node.home / "agent.log"
    until(lambda: "artifacts wait" in log.read_text(), "its artifacts to wait")
    (attempt,) = until(lambda: [one for one in fleet.attempts(job, "make") if one["message"]], "to be told")
    assert attempt["state"] == "running"
    assert "TOW_OUT waits to be taken by the server: the object store fails" in attempt["message"]
    why = fleet.get(f"/v1/jobs/{job}/why", task="make", index=0)["summary"]
    assert why.endswith(attempt["message"])
    node.die()
    until(lambda: len(fleet.attempts(job, "make")) == 2, "it to run elsewhere")
    in_the_way.unlink()
    assert ended(fleet, job) == "succeeded"
    assert [one["state"] for one in fleet.attempts(job, "make")] == ["lost", "finished"]
    assert fleet.stdout(job, "use", 0).decode() == told(2, 20)


def node_id(machine: Machine) -> str:
    return (machine.home / "node/id").read_text().strip()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", "16m") as disk:
        yield disk


def test_a_full_disk_of_the_server_costs_time_alone(disk: SmallDisk) -> None:
    fleet = Fleet({**PATIENT, "TOWLINE_OBJECT_STORE": f"file://{disk.folder}"})
    try:
        fleet.serve()
        first, _ = fleet.join("a", "b")
        job = fleet.submit("full", **chain(40, ["a"], "b"))
        log = first.home / "agent.log"
        until(lambda: "No space left" in log.read_text(), "the full disk to be told")
        assert {one["state"] for one in fleet.attempts(job, "make")} == {"running"}
        disk.resize("200m")
        assert ended(fleet, job) == "succeeded"
        assert fleet.stdout(job, "use", 0).decode() == told(1, 40)
    finally:
        print(fleet.situation())  # noqa: T201
        fleet.close()


def test_a_full_disk_of_the_reader_is_told_and_tried_again(fleet: Fleet, disk: SmallDisk) -> None:
    fleet.serve()
    folder = fleet.folder / "b/node/artifacts"
    folder.mkdir(mode=0o700, parents=True)
    # Before its keeper starts, which sees no later mount.
    subprocess.run(["mount", "--bind", str(disk.folder), str(folder)], check=True)
    try:
        _, second = fleet.join("a", "b")
        tasks = chain(40, ["a"], "b")
        tasks["use"]["retries"] = {"limit": 100, "backoff": {"first": "1s", "max": "1s"}}
        job = fleet.submit("full", **tasks)
        failed = until(
            lambda: [one for one in fleet.attempts(job, "use") if one["state"] == "finished"], "it to fail"
        )
        assert failed[0]["reason"] == "disk_full"
        assert "no space left on the node's disk for its input 'make'" in failed[0]["message"]
        disk.resize("200m")
        assert ended(fleet, job) == "succeeded"
        assert fleet.stdout(job, "use", 0).decode() == told(1, 40)
        second.die()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
