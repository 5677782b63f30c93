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
SIZES = {"box": 20, "leased": 5}
PATIENT = {"TOWLINE_NODE_LEASE": "100s", "TOWLINE_LOST_AFTER": "120s"}
"""However long a busy machine takes for a new agent or server, nothing is to be declared lost."""
SCRIPT = """
me=$TOW_TASK.$TOW_INDEX
echo $TOW_ATTEMPT >> /shared/began.$me
while [ ! -e /shared/end.$me ] && [ ! -e /shared/end ]; do sleep 0.2; done
echo "last words of $me"
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
    node.start()
    until(lambda: _ended(fleet, job) == 5, "what ended meanwhile to be told")
    assert _shells(node) < shells

    # The server dies; others end before it is back.
    fleet.kill_server()
    _end(shared, range(5, 12))
    until(lambda: len(_shells(node)) == count - 12, "more to end")
    fleet.serve()
    assert fleet.submit("boxes", key="boxes", **tasks) == job
    until(lambda: _ended(fleet, job) == 12, "what ended meanwhile to be told")
    assert _shells(node) < shells
    (shared / "end").touch()
    until(lambda: fleet.get(f"/v1/jobs/{job}")["ended_at"], "the job to end")
    for name, size in SIZES.items():
        attempts = fleet.attempts(job, name)
        ends = [(attempt["number"], attempt["exit_code"]) for attempt in attempts]
        assert ends == [(1, index + 1) for index in range(size)]
        assert [(shared / f"began.{name}.{index}").read_text() for index in range(size)] == ["1\n"] * size
        for index in range(size):
            assert fleet.stdout(job, name, index) == f"last words of {name}.{index}\n".encode()


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


def _end(shared: Path, indexes: range) -> None:
    for index in indexes:
        (shared / f"end.box.{index}").touch()
