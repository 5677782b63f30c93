"""Plans, and the folders that they name, of one node."""

from __future__ import annotations

from pathlib import Path

import pytest

from towline.agent.artifacts import Artifacts
from towline.agent.prepare import MAX_TEMPLATES, Preparer, Template, Templates, Unprepared
from towline.core.commands import AttemptUpdate, attempt_id
from towline.images import ImageStore
from towline.model.job import Array, Need, Resources, TaskSpec
from towline.runtime.port import Plan
from towline.wire.messages import TaskInfo

ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/home/ada", "SECRET": "no"}


class Node:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.artifacts = Artifacts(folder / "artifacts")
        self.preparer = Preparer(folder, self.artifacts, ImageStore(folder / "images"), ENVIRON)

    async def plan(self, spec: TaskSpec, index: int = 0, number: int = 1, **inputs: object) -> Plan:
        template = Template(info(spec, **inputs))
        if not self.preparer.make_ready_now(template):
            await self.preparer.make_ready(template)
        return self.preparer.plan(template, attempt_id(("job1", 5, index, number)), index, number)

    def succeed(self, task: int, index: int, number: int = 1, text: str = "") -> AttemptUpdate:
        """What an attempt does that writes ``text`` and exits with 0."""
        out = Path(self.artifacts.begin_task("job1", task), f"{index}.{number}")
        out.mkdir(exist_ok=True)
        if text:
            (out / "text").write_text(text)
        return self.artifacts.settle(ended(task, index, number))


def info(spec: TaskSpec, **input_tasks: object) -> TaskInfo:
    return TaskInfo(
        job="job1", task=5, job_name="flights", task_name="count", spec=spec, base_dir=None,
        input_tasks=input_tasks,  # type: ignore[arg-type]
    )  # fmt: skip


def ended(task: int, index: int, number: int, exit_code: int = 0) -> AttemptUpdate:
    attempt = attempt_id(("job1", task, index, number))
    return AttemptUpdate(attempt=attempt, state="finished", reason="exited", exit_code=exit_code)


def names(folder: Path | str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def text(*folder: str) -> str:
    return Path(*folder, "text").read_text()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


async def test_a_process_gets_its_own_variables_over_defaults_and_towlines_over_all(node: Node) -> None:
    env = {"LANG": "de_DE", "TOW_INDEX": "forged"}
    spec = TaskSpec(runtime="process", command=("sh", "-c"), args=("true",), env=env)
    plan = await node.plan(spec)
    assert plan.argv == ("sh", "-c", "true")
    assert plan.env == {
        "PATH": "/usr/bin:/bin",
        "HOME": "/home/ada",
        "LANG": "de_DE",
        "TMPDIR": plan.directory,
        "TOW_JOB": "job1",
        "TOW_TASK": "count",
        "TOW_INDEX": "0",
        "TOW_VALUE": "",
        "TOW_ATTEMPT": "1",
        "TOW_OUT": plan.out,
    }
    assert names(plan.out) == []
    assert plan.directory == f"{node.folder}/attempts/job1-5-0-1"
    assert plan.logs == f"{node.folder}/output/job1-5-0-1"


async def test_limits_come_from_the_task(node: Node) -> None:
    resources = Resources(cpu_milli=50, memory_bytes=7, pids=3)
    spec = TaskSpec(runtime="process", command=("x",), resources=resources, timeout_ms=9, grace_ms=8)
    plan = await node.plan(spec)
    assert (plan.cpu_milli, plan.memory_bytes, plan.pids) == (50, 7, 3)
    assert (plan.timeout_ms, plan.grace_ms, plan.max_log_bytes) == (9, 8, 64 * 1024**2)


def test_an_engine_cannot_keep_a_lease(node: Node) -> None:
    template = Template(info(TaskSpec(image="x", command=("x",), on_disconnect="stop")))
    template.runtime = "docker"
    with pytest.raises(Unprepared, match="on_disconnect: stop cannot be kept here"):
        node.preparer.plan(template, "job1-5-0-1", 0, 1, lease_ms=7)


async def test_each_element_has_its_index_and_value(node: Node) -> None:
    spec = TaskSpec(
        runtime="process", command=("echo", "{{index}}={{value}}"), env={"V": "<{{value}}>"},
        array=Array(first=3, last=4, values=("red", "blue")),
    )  # fmt: skip
    template = Template(info(spec))
    assert node.preparer.make_ready_now(template)
    for index, value in ((3, "red"), (4, "blue")):
        plan = node.preparer.plan(template, f"a{index}", index, 2)
        assert plan.argv == ("echo", f"{index}={value}")
        assert plan.env["V"] == f"<{value}>"
        assert plan.env["TOW_VALUE"] == value
        assert plan.env["TOW_ATTEMPT"] == "2"


async def test_a_plan_made_again_by_the_next_agent_uses_the_same_folder(node: Node) -> None:
    spec = TaskSpec(runtime="process", command=("x",))
    assert (await node.plan(spec)).out == (await node.plan(spec)).out


async def test_inputs_of_a_task_and_of_an_array(node: Node) -> None:
    node.succeed(0, 0, text="one")
    for index in (2, 3):
        node.succeed(1, index, text=f"part {index}")
    node.succeed(1, 4)
    spec = TaskSpec(runtime="process", command=("x",), inputs={"split": "in/split", "parts": "in/parts"})
    plan = await node.plan(spec, split=(0, 0, 0, False), parts=(1, 2, 4, True))
    (one, one_target), (many, many_target) = plan.inputs
    assert (one_target, many_target) == ("in/split", "in/parts")
    assert text(one) == "one"
    assert names(many) == ["2", "3", "4"], "also an element that wrote nothing"
    assert text(many, "3") == "part 3"


async def test_input_of_an_each_need_is_the_element_in_the_same_place(node: Node) -> None:
    for index in (10, 11):
        node.succeed(1, index, text=f"part {index}")
    spec = TaskSpec(
        runtime="process", command=("x",), inputs={"parts": "in/{{index}}"}, array=Array(first=0, last=1),
        needs=(Need(task="parts", each=True),),
    )  # fmt: skip
    plan = await node.plan(spec, index=1, parts=(1, 10, 11, True))
    ((folder, target),) = plan.inputs
    assert target == "in/1"
    assert text(folder) == "part 11"


async def test_a_missing_image_is_named_with_its_reason(node: Node) -> None:
    with pytest.raises(Unprepared, match="nowhere") as caught:
        await node.plan(TaskSpec(image="oci:/nowhere:1", command=("x",)))
    assert caught.value.reason == "image_not_found"


async def test_a_folder_that_cannot_be_made_is_named(node: Node) -> None:
    (node.folder / "artifacts").write_text("a file")
    with pytest.raises(Unprepared, match="cannot be made on the node: Not a directory"):
        await node.plan(TaskSpec(runtime="process", command=("x",)))


def test_only_so_many_tasks_are_remembered() -> None:
    templates = Templates()
    spec = TaskSpec(runtime="process", command=("x",))
    for task in range(MAX_TEMPLATES + 1):
        templates.add(TaskInfo(
            job="job1", task=task, job_name="", task_name="", spec=spec, base_dir=None, input_tasks={},
        ))  # fmt: skip
        templates.get("job1", 0)
    assert templates.get("job1", 1) is None
    kept = templates.get("job1", 0)
    assert kept is not None
    templates.add(info(spec))
    templates.add(TaskInfo(
        job="job1", task=0, job_name="", task_name="", spec=spec, base_dir=None, input_tasks={},
    ))  # fmt: skip
    assert templates.get("job1", 0) is kept, "a new link tells of it again, and it is still ready"


class TestArtifacts:
    def test_of_a_success_are_the_elements_and_settled_once(self, node: Node) -> None:
        update = node.succeed(0, 7, text="hello")
        assert update == ended(0, 7, 1)
        kept = node.folder / "artifacts/job1/0/7/text"
        assert kept.read_text() == "hello"
        assert node.artifacts.settle(update) == update
        assert kept.read_text() == "hello"
        assert names(node.folder / "artifacts/job1/0.attempts") == []

    def test_of_a_failure_stay_apart(self, node: Node) -> None:
        out = Path(node.artifacts.begin_task("job1", 0), "7.1")
        out.mkdir()
        (out / "text").write_text("half")
        node.artifacts.settle(ended(0, 7, 1, exit_code=1))
        assert (out / "text").read_text() == "half"
        node.succeed(0, 7, number=2, text="whole")
        assert (node.folder / "artifacts/job1/0/7/text").read_text() == "whole"

    def test_nothing_written_leaves_nothing(self, node: Node) -> None:
        node.succeed(0, 7)
        assert names(node.folder / "artifacts/job1") == ["0.attempts"]
        assert names(node.folder / "artifacts/job1/0.attempts") == []

    @pytest.mark.parametrize("order", [(1, 2), (2, 1), (2, 3), (3, 2), (1, 2, 3), (3, 1, 2)])
    def test_of_the_newest_success_stand_in_whatever_order_they_end(
        self, node: Node, order: tuple[int, ...]
    ) -> None:
        for number in order:
            node.succeed(0, 7, number=number, text=f"by {number}")
        kept = node.folder / "artifacts/job1/0/7/text"
        assert kept.read_text() == f"by {max(order)}"

    def test_a_success_that_cannot_be_kept_is_none(self, node: Node) -> None:
        (node.folder / "artifacts/job1").mkdir(parents=True)
        (node.folder / "artifacts/job1/0").write_text("in the way")
        update = node.succeed(0, 7, text="hello")
        assert (update.state, update.reason) == ("finished", "disk_full")
        assert update.message == "What it wrote to TOW_OUT could not be kept on the node: Not a directory."

    def test_names_that_are_no_attempts_are_left_alone(self, node: Node) -> None:
        update = AttemptUpdate(attempt="x", state="finished")
        assert node.artifacts.settle(update) is update
