"""What is left after an attempt: its output and what it kept, nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.runtimes.node import Node, eventually


def test_its_directory_goes(node: Node) -> None:
    plan = node.plan("mkdir -p deep/er; echo x > deep/er/file; echo kept > $TOW_OUT/result")
    node.run(plan)
    assert node.ended(plan).exit_code == 0
    eventually(lambda: not Path(plan.directory).exists(), "the attempt's directory is still there")
    assert Path(plan.out, "result").read_text() == "kept\n"


def test_its_directory_goes_also_if_the_supervisor_does(node: Node) -> None:
    plans = [node.plan("mkdir d; echo x > d/file; exit 1") for _ in range(5)]
    node.run(*plans)
    for plan in plans:
        node.ended(plan)
    node.kill("both")
    node.connect()
    eventually(lambda: not any(Path(plan.directory).exists() for plan in plans), "directories are left")


def test_inputs_are_where_they_were_asked_for(node: Node, tmp_path: Path) -> None:
    (tmp_path / "part").write_text("from the task before\n")
    plan = node.plan("cat in/before/part", inputs=((str(tmp_path), "/in/before"),))
    node.run(plan)
    assert node.ended(plan).exit_code == 0
    assert node.output(plan) == b"from the task before\n"
    assert (tmp_path / "part").exists()
