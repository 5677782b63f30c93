"""``kill -9`` of each of our processes in a cluster, with containers running: none is disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.fleet import Fleet, Machine
from tests.e2e.home import Home, until

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
]
SIZES = {"box": 20, "leased": 5}
PATIENT = {"TOWLINE_NODE_LEASE": "100s", "TOWLINE_LOST_AFTER": "120s"}
"""However long a busy machine takes for a new agent or server, nothing is to be declared lost."""
SCRIPT = """
me=$TOW_TASK.$TOW_INDEX
echo $TOW_ATTEMPT >> /shared/began.$me
n=0
while [ ! -e /shared/end.$me ] && [ ! -e /shared/end ]; do echo $n; n=$((n+1)); sleep 0.2; done
echo $n > /shared/lines.$me
echo "last words of $me"
exit $((TOW_INDEX + 1))
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(PATIENT, str(tmp_path))
    try:
        yield made
    finally:
        made.close()


def test_what_runs_outlives_agent_and_server(fleet: Fleet, tmp_path: Path, busybox_image: str) -> None:
    """Twenty containers, and some under on_disconnect: stop, whose lease goes on in time."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    tasks = {name: _task(shared, busybox_image, size) for name, size in SIZES.items()}
    tasks["leased"]["on_disconnect"] = "stop"
    count = sum(SIZES.values())
    fleet.serve()
    (node,) = fleet.join("node")
    job = fleet.submit("boxes", key="boxes", **tasks)
    until(lambda: len(list(shared.glob("began.*"))) == count, "all to run")
    shells = _shells(node)
    assert len(shells) == count

    # The agent dies; some containers end before the next one is there.
    node.signal(signal.SIGKILL, "agent")
    _end(shared, range(5))
    until(lambda: len(_shells(node)) == count - 5, "some to end")
    began_s = time.monotonic()
    node.start()
    until(lambda: _ended(fleet, job) == 5, "what ended meanwhile to be told")
    print(f"re-adopted in {time.monotonic() - began_s:.2f} s")  # noqa: T201 - below 5 on a quiet machine
    assert _shells(node) < shells

    # The server dies; others end before it is back.
    fleet.kill_server()
    _end(shared, range(5, 9))
    until(lambda: len(_shells(node)) == count - 9, "more to end")
    fleet.serve()
    assert fleet.submit("boxes", key="boxes", **tasks) == job
    until(lambda: _ended(fleet, job) == 9, "what ended meanwhile to be told")

    # Keeper and supervisor die: one at a time, then together, where the kernel tells of the exits.
    for at, roles in enumerate((("keeper",), ("supervisor",), ("keeper", "supervisor"))):
        _kill(node, *roles)
        _end(shared, range(9 + 3 * at, 12 + 3 * at))
        until(partial(_have_ended, fleet, job, 12 + 3 * at), "what ended after that to be told")
        assert _shells(node) < shells
    (shared / "end").touch()
    until(lambda: fleet.get(f"/v1/jobs/{job}")["ended_at"], "the job to end")
    for name, size in SIZES.items():
        attempts = fleet.attempts(job, name)
        ends = [(attempt["number"], attempt["exit_code"]) for attempt in attempts]
        assert ends == [(1, index + 1) for index in range(size)]
        assert [(shared / f"began.{name}.{index}").read_text() for index in range(size)] == ["1\n"] * size
        gaps = [gap for index in range(size) if (gap := _gap(fleet, shared, job, name, index)) is not None]
        assert not gaps


def _gap(fleet: Fleet, shared: Path, job: str, name: str, index: int) -> str | None:
    """What is wrong with an element's output; None: nothing."""
    count = int((shared / f"lines.{name}.{index}").read_text())
    wanted = [*map(str, range(count)), f"last words of {name}.{index}"]
    found = fleet.stdout(job, name, index).decode().splitlines()
    return None if found == wanted else f"{name}.{index}: {len(found)} lines of {len(wanted)}: {found[-3:]}"


def test_a_submission_whose_answer_never_came_is_taken_once(fleet: Fleet, tmp_path: Path) -> None:
    """The server dies after its commit, before anybody has read what it says."""
    fleet.serve()
    task = {"runtime": "process", "command": ["true"], "where": {"node": "nobody"}}
    document = {"document": {"name": "once", "tasks": {"a": task}}, "params": {}, "base_dir": None}
    body = json.dumps(document).encode()
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nhost: towline\r\nidempotency-key: once\r\ncontent-length: {len(body)}\r\n"
    )
    with socket.socket(socket.AF_UNIX) as unread:
        unread.connect(str(fleet.home / "tow.sock"))
        unread.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + body)
        (job,) = until(lambda: fleet.get("/v1/jobs")["jobs"], "it to be committed")
        fleet.kill_server()
    fleet.serve()
    assert fleet.submit("once", key="once", a=task) == job["id"]
    other = {"document": {"name": "other", "tasks": {"a": task}}, "params": {}, "base_dir": None}
    assert fleet.http.post("/v1/jobs", json=other, headers={"idempotency-key": "once"}).status_code == 409
    assert len(fleet.get("/v1/jobs")["jobs"]) == 1


def _kill(node: Machine, *roles: str) -> None:
    """Returns when others have taken their places, and up what runs: what ends before that while both are
    dead has no witness."""
    before, log = set(node.pids(*roles)), node.home / "agent.log"
    told = log.read_text().count("supervised")
    node.signal(signal.SIGKILL, *roles)

    def back() -> bool:
        both = len(node.pids("keeper")) == len(node.pids("supervisor")) == 1
        new = both and not before & set(node.pids(*roles))
        return new and log.read_text().count("supervised") > told

    until(back, f"{roles} to be back")


def _task(shared: Path, image: str, size: int) -> dict[str, Any]:
    return {
        "image": image,
        "command": ["sh", "-c", SCRIPT],
        "array": size,
        "resources": {"cpu": 0.01, "memory": "16Mi"},
        "mounts": [{"source": str(shared), "target": "/shared"}],
    }


def _shells(node: Machine) -> set[int]:
    """The first processes of its containers."""
    return {pid for pid in Home(node.home, node.home).contained() if _is_first(pid)}


def _is_first(pid: int) -> bool:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return any(line.startswith("NSpid:") and line.split()[2:] == ["1"] for line in status.splitlines())
    return False


def _ended(fleet: Fleet, job: str) -> int:
    return sum(attempt["state"] == "finished" for name in SIZES for attempt in fleet.attempts(job, name))


def _have_ended(fleet: Fleet, job: str, count: int) -> bool:
    return _ended(fleet, job) == count


def _end(shared: Path, indexes: range) -> None:
    for index in indexes:
        (shared / f"end.box.{index}").touch()
