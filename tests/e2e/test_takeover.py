"""``kill -9`` of an agent and of the server of a cluster, with containers running: none is disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.fleet import Fleet, Machine
from tests.e2e.home import Home, until

pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
]
CONTAINERS = 20
PATIENT = {"TOWLINE_NODE_LEASE": "100s", "TOWLINE_LOST_AFTER": "120s"}
"""However long a busy machine takes for a new agent or server, nothing is to be declared lost."""
SCRIPT = """
echo $TOW_ATTEMPT >> /shared/began.$TOW_INDEX
while [ ! -e /shared/end.$TOW_INDEX ] && [ ! -e /shared/end ]; do sleep 0.2; done
echo "last words of $TOW_INDEX"
exit $((TOW_INDEX + 1))
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(PATIENT, str(tmp_path))
    try:
        yield made
    except BaseException:
        print(made.situation())  # noqa: T201 - shown where the test fails
        raise
    finally:
        made.close()


@pytest.mark.parametrize("policy", ["keep", "stop"])
def test_twenty_containers_outlive_agent_and_server(
    fleet: Fleet, tmp_path: Path, busybox_image: str, policy: str
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    tasks: dict[str, dict[str, Any]] = {"box": {
        "image": busybox_image, "command": ["sh", "-c", SCRIPT], "array": CONTAINERS,
        "resources": {"cpu": 0.01, "memory": "16Mi"}, "on_disconnect": policy,
        "mounts": [{"source": str(shared), "target": "/shared"}],
    }}  # fmt: skip
    fleet.serve()
    (node,) = fleet.join("node")
    job = fleet.submit("boxes", key="boxes", **tasks)
    until(lambda: len(list(shared.glob("began.*"))) == CONTAINERS, "all to run")
    shells = _shells(node)
    assert len(shells) == CONTAINERS

    # The agent dies; some containers end before the next one is there.
    node.signal(signal.SIGKILL, "agent")
    _end(shared, range(5))
    until(lambda: len(_shells(node)) == CONTAINERS - 5, "some to end")
    node.start()
    until(lambda: _ended(fleet, job) == 5, "what ended meanwhile to be told")
    assert _shells(node) < shells

    # The server dies; others end before it is back.
    fleet.kill_server()
    _end(shared, range(5, 12))
    until(lambda: len(_shells(node)) == CONTAINERS - 12, "more to end")
    fleet.serve()
    assert fleet.submit("boxes", key="boxes", **tasks) == job
    until(lambda: _ended(fleet, job) == 12, "what ended meanwhile to be told")
    assert _shells(node) < shells
    (shared / "end").touch()
    until(lambda: fleet.get(f"/v1/jobs/{job}")["ended_at"], "the job to end")

    attempts = fleet.attempts(job, "box")
    assert [(each["number"], each["exit_code"]) for each in attempts] == [
        (1, i + 1) for i in range(CONTAINERS)
    ]
    assert [(shared / f"began.{i}").read_text() for i in range(CONTAINERS)] == ["1\n"] * CONTAINERS
    for index, attempt in enumerate(attempts):
        output = node.home / "node" / "output" / attempt["id"] / "stdout"
        assert output.read_text() == f"last words of {index}\n"


def _shells(node: Machine) -> set[int]:
    """The first processes of its containers."""
    return {pid for pid in Home(node.home, node.home).contained() if _is_first(pid)}


def _is_first(pid: int) -> bool:
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return any(line.startswith("NSpid:") and line.split()[2:] == ["1"] for line in status.splitlines())
    return False


def _ended(fleet: Fleet, job: str) -> int:
    return sum(attempt["state"] == "finished" for attempt in fleet.attempts(job, "box"))


def _end(shared: Path, indexes: range) -> None:
    for index in indexes:
        (shared / f"end.{index}").touch()
