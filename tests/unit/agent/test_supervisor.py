"""Keeper and supervisor with real processes: what the conformance suite of runtimes does not ask."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.runtimes.node import Node, eventually, gone
from tests.conformance.runtimes.registry import process_plan

from towline.agent import control
from towline.agent.keeper import start_keeper
from towline.agent.supervision import kernel
from towline.agent.supervision.journal import Begun, pack, unpack

WAITS = "echo ready; while [ ! -e $TOW_OUT/go ]; do sleep 0.02; done; exit 5"

_GLIBC_OWN = 1 << 31 | 1 << 32
"""Signals 32 and 33, which every posix_spawn leaves ignored; a program's C library takes them anew."""


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node(process_plan)
    node.connect()
    yield node
    node.close()


@pytest.mark.parametrize(("name", "number"), [("SEGV", 11), ("KILL", 9), ("TERM", 15)])
def test_a_signal_of_its_own(node: Node, name: str, number: int) -> None:
    update = node.result(f"kill -{name} $$")
    assert (update.reason, update.exit_code, update.signal) == ("exited", None, number)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ((), "command is empty"),
        (("/etc",), "is a directory"),
        (("/etc/passwd",), "is not executable (chmod +x it"),
        (("/no/such/thing",), "'/no/such/thing' was not found"),
        (("no-such-thing",), "PATH is /usr/local/bin:/usr/bin:/bin"),
        (("sh", "-c", "true", "nul\0byte"), "null"),
        (("sh", "-c", "true", "x" * 3_000_000), "too long for the kernel"),
    ],
)
def test_start_failed_says_why(node: Node, argv: tuple[str, ...], words: str) -> None:
    update = node.result("", argv=argv)
    assert update.reason == "start_failed"
    assert update.message is not None
    assert words in update.message


def test_a_script_without_its_interpreter(node: Node, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert "interpreter" in (node.result("", argv=(str(script),)).message or "")
    script.write_text("no first line\n")
    assert "needs a first line" in (node.result("", argv=(str(script),)).message or "")


def test_workdir(node: Node, tmp_path: Path) -> None:
    plan = node.plan("pwd", runtime_data={"workdir": str(tmp_path)})
    node.run(plan)
    node.ended(plan)
    assert node.output(plan).decode().strip() == str(tmp_path)
    update = node.result("pwd", runtime_data={"workdir": "/no/such/dir"})
    assert update.message == "workdir '/no/such/dir' cannot be entered: No such file or directory"


@pytest.mark.parametrize("target", ["/", "../out", "/a/../../b"])
def test_inputs_stay_below_the_working_directory(node: Node, target: str) -> None:
    assert "inputs" in (node.result("true", inputs=(("/tmp", target),)).message or "")


def test_its_surroundings(node: Node) -> None:
    plan = node.plan(
        "env; pwd; cat; umask; grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l"
    )
    node.run(plan)
    assert node.ended(plan).exit_code == 0
    lines = node.output(plan).decode().splitlines()
    for name, value in plan.env.items():
        assert f"{name}={value}" in lines
    assert plan.directory in lines
    assert "SigBlk:\t0000000000000000" in lines
    ignored = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    assert ignored & ~_GLIBC_OWN == 0
    assert lines[-1] == "4"  # 0, 1, 2 and the one with which ls reads: nothing of ours came along


def test_peak_memory_of_a_large_one(node: Node) -> None:
    update = node.result("", argv=(sys.executable, "-c", "x = bytearray(200_000_000)"))
    assert update.peak_memory_bytes is not None
    assert 200_000_000 < update.peak_memory_bytes < 300_000_000
    assert node.result("true").peak_memory_bytes is None  # below the supervisor's own: nobody can tell


def test_escapees_are_killed(node: Node) -> None:
    """Another session, and no environment either: found at the latest when nothing else runs."""
    plan = node.plan("(setsid env -i /bin/sleep 4242 &); exit 0")
    node.run(plan)
    node.ended(plan)

    def left() -> list[int]:
        lines = ((pid, Path(f"/proc/{pid}/cmdline")) for pid in kernel.processes())
        return [pid for pid, path in lines if path.exists() and _text(path) == "/bin/sleep\x004242\x00"]

    eventually(lambda: not left(), "it escaped")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_after_a_reboot_all_is_lost(node: Node) -> None:
    plan = node.plan(WAITS)
    done = node.plan("exit 3")
    node.run(plan, done)
    node.printed(plan, b"ready")
    node.ended(done)
    pid = node.processes_of(plan)[0]
    instance = node.instances[-1]
    node.kill("both")
    os.kill(pid, signal.SIGKILL)
    path = Path(node.dir, "journal", "journal")
    records, _, _ = unpack(path.read_bytes())
    records = [Begun(r.instance, "an earlier boot", r.turn) if isinstance(r, Begun) else r for r in records]
    path.write_bytes(b"".join(map(pack, records)))
    node.connect()
    update = node.updates[plan.attempt]
    assert (update.state, update.reason) == ("lost", "supervision_lost")
    assert update.message == "the machine was restarted while it ran"
    assert node.updates[done.attempt].exit_code == 3
    assert node.instances[-1] == instance


def test_a_damaged_journal_is_another_instance(node: Node) -> None:
    """What no record claims any more is killed: the server will have it run again elsewhere."""
    plan = node.plan(WAITS)
    node.run(plan)
    node.printed(plan, b"ready")
    instance = node.instances[-1]
    node.kill("both")
    Path(node.dir, "journal", "journal").write_bytes(b"\xff" * 500)
    node.connect()
    assert node.instances[-1] != instance
    assert plan.attempt not in {update.attempt for update in node.history[-1:] if update.state != "running"}
    eventually(lambda: not node.processes_of(plan), "it still runs")
    node.updates.clear()
    assert node.result("exit 2").exit_code == 2
    Path(plan.directory).rmdir()


def test_the_journal_is_rewritten_when_it_is_large(node: Node) -> None:
    env = {"TOW_OUT": f"{node.dir}/artifacts/x", "PATH": "/bin", "FILL": "x" * 100_000}
    path = Path(node.dir, "journal", "journal")
    largest = 0
    for _ in range(120):
        plan = node.plan("exit 0", env=env)
        node.run(plan)
        node.ended(plan)
        node.send(control.Forget(attempts=(plan.attempt,)))
        largest = max(largest, path.stat().st_size)
    assert 7 << 20 < largest < 9 << 20
    assert path.stat().st_size < 8 << 20
    node.kill("supervisor")
    assert node.result("exit 2").exit_code == 2


def test_does_not_retire_while_something_runs(node: Node) -> None:
    plan = node.plan(WAITS)
    node.run(plan)
    node.printed(plan, b"ready")
    pids = (node.supervisor, node.keeper)
    node.send(control.Retire())
    assert node.result("exit 2").exit_code == 2
    assert (node.supervisor, node.keeper) == pids
    Path(plan.out, "go").touch()
    assert node.ended(plan).exit_code == 5


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\3abc", b"\0\0\0\1\x90" + b"\0\0\0\0"])
def test_an_agent_that_talks_nonsense_is_dropped(node: Node, data: bytes) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(f"{node.dir}/supervisor.sock")
    sock.sendall(data)
    while sock.recv(65536):
        continue
    sock.close()
    node.connect()
    assert node.result("exit 2").exit_code == 2


def test_one_keeper_for_a_node(node: Node) -> None:
    pids = (node.supervisor, node.keeper)
    for _ in range(2):
        start_keeper(node.dir)
    second = [sys.executable, "-P", "-m", "towline.agent.keeper", node.dir]
    assert subprocess.run(second, check=False, timeout=60).returncode == 0
    node.connect()
    assert (node.supervisor, node.keeper) == pids
    assert node.result("exit 2").exit_code == 2


def test_a_long_node_directory() -> None:
    """A socket's name is at most 107 bytes long; a directory's may be longer."""
    node = Node(process_plan)
    try:
        deep = Path(node.dir, "d" * 100, "node")
        deep.mkdir(parents=True)
        start_keeper(str(deep))
        directory = os.open(deep, os.O_PATH)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(f"/proc/self/fd/{directory}/supervisor.sock")
            sock.sendall(control.encode([control.Retire()]))
            while sock.recv(65536):
                continue
        os.close(directory)
    finally:
        node.close()


def test_a_keeper_without_a_folder_and_work_ends(tmp_path: Path) -> None:
    node = Node(process_plan)
    node.connect()
    supervisor, keeper = node.supervisor, node.keeper
    Path(node.dir).rename(tmp_path / "moved")
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: gone(keeper), "the end of the keeper")
    node.disconnect()


@pytest.mark.parametrize("supervisor_dies", [False, True])
def test_nothing_is_left_where_the_folder_was_removed(supervisor_dies: bool) -> None:
    node = Node(process_plan)
    node.connect()
    plan = node.plan("exec sleep 1000")
    node.run(plan)
    node.until(lambda: node.processes_of(plan))
    pids = [*node.processes_of(plan), node.supervisor, node.keeper]
    try:
        shutil.rmtree(node.dir)
        if supervisor_dies:
            os.kill(node.supervisor, signal.SIGKILL)
        eventually(lambda: all(map(gone, pids)), f"the end of {pids}")
    finally:
        node.disconnect()
        for pid in pids:
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)
