"""How attempts are entered, and how what was started in them is found and ended."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from towline.runtime.exec.marks import NAME, is_marked, kill_marked, node_mark
from towline.runtime.exec.process import ProcessEntering
from towline.runtime.policy import Policy, exec_refusal
from towline.runtime.port import CannotExec, Entry, Plan, Wish


def entry(folder: Path, wish: Wish, workdir: str = "") -> Entry:
    plan = Plan(
        attempt="job-0-0-1", runtime="process", argv=("sleep", "9"), env={"A": "1", "B": "2", "PATH": "/bin"},
        directory=str(folder), logs="", out="", timeout_ms=None, grace_ms=0, max_log_bytes=0,
        runtime_data={"workdir": workdir},
    )  # fmt: skip
    return ProcessEntering().entry(plan, 1, wish, "")


def test_a_process_is_entered_with_its_folder_and_environment(tmp_path: Path) -> None:
    found = entry(tmp_path, Wish(argv=("sh", "-c", "x"), mark="n.1", env={"B": "3"}), "below")
    assert (found.program, found.argv) == ("/bin/sh", ("sh", "-c", "x"))
    assert found.env == {"A": "1", "B": "3", "PATH": "/bin", NAME: "n.1"}
    assert found.directory == f"{tmp_path}/below/"
    assert entry(tmp_path, Wish(argv=("sh",), mark="n.1", workdir="/tmp")).directory == "/tmp"


def test_what_cannot_run_has_the_shells_status(tmp_path: Path) -> None:
    with pytest.raises(CannotExec, match="was not found") as absent:
        entry(tmp_path, Wish(argv=("nosuch",), mark="n.1"))
    assert absent.value.status == 127
    (tmp_path / "data").write_text("")
    wish = Wish(argv=("data",), mark="n.1", env={"PATH": str(tmp_path)})
    with pytest.raises(CannotExec, match="not executable") as unfit:
        entry(tmp_path, wish)
    assert unfit.value.status == 126
    with pytest.raises(CannotExec, match="--user is not possible here") as user:
        entry(tmp_path, Wish(argv=("sh",), mark="n.1", user="root"))
    assert user.value.status == 0


def test_a_node_may_forbid_it_or_some_users() -> None:
    assert exec_refusal(None, Policy()) is None
    assert exec_refusal("root", Policy()) is None
    assert "TOWLINE_POLICY_EXEC=true" in str(exec_refusal(None, Policy(exec=False)))
    some = Policy(users=("1000",))
    assert exec_refusal(None, some) is None
    assert exec_refusal("1000", some) is None
    assert str(exec_refusal("root", some)).startswith("user: 'root' is not allowed on this node")


def test_marks_find_all_that_was_started_and_nothing_else() -> None:
    mark = f"{node_mark('/nowhere')}{os.urandom(4).hex()}"
    script = "sleep 1000 & setsid sleep 1000 & (sleep 1000; sleep 1000) & echo ready; read never"
    tree = subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, NAME: mark}
    )
    bystander = subprocess.Popen(["sleep", "1000"], env={**os.environ, NAME: f"{mark[:-1]}!"})
    try:
        assert tree.stdout is not None
        assert tree.stdout.readline() == b"ready\n"
        assert is_marked(tree.pid, mark)
        assert kill_marked(mark) >= 4
        assert tree.wait(10) == -9
        assert tree.stdout.read() == b""  # nobody has the pipe any more
        assert kill_marked(mark) == 0
        assert bystander.poll() is None
    finally:
        for process in (tree, bystander):
            process.kill()
            process.wait()
        for stream in (tree.stdin, tree.stdout):
            if stream is not None:
                stream.close()
