"""What a task may ask for, by its runtime: images, mounts, inputs, folders."""

from __future__ import annotations

import pytest
from tests.unit.model.loading import tree_problems

from towline.errors import InvalidDocument
from towline.model.document import load_tree
from towline.model.job import JobSpec
from towline.model.places import resolve_mounts


def oci(**fields: object) -> dict[str, object]:
    return {"name": "job", "tasks": {"a": {"image": "oci:x", **fields}}}


def process(**fields: object) -> dict[str, object]:
    return {"name": "job", "tasks": {"a": {"runtime": "process", "command": ["true"], **fields}}}


def only(tree: object) -> str:
    (found,) = tree_problems(tree)
    return str(found)


def test_a_container_needs_an_image():
    tree = {"name": "job", "tasks": {"a": {"command": ["true"]}}}
    assert only(tree) == (
        "tasks.a.image: is missing (write image: busybox:1.36, or runtime: process for no container)"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("image", "oci:x"), ("mounts", []), ("network", "none"), ("args", ["x"])],
)
def test_what_a_plain_process_cannot_have(field, value):
    found = tree_problems(process(**{field: value}))[0]
    assert found.where == f"tasks.a.{field}"
    assert found.message == "is not for runtime: process, which has no container"


def test_a_plain_process_needs_a_command():
    tree = {"name": "job", "tasks": {"a": {"runtime": "process"}}}
    assert only(tree).startswith("tasks.a.command: is missing (write command:")
    assert only(process(command=[])).startswith("tasks.a.command: is an empty list")


def test_command_and_args_exclude_each_other():
    assert only(oci(command=["a"], args=["b"])).startswith("tasks.a.args: stands beside command")
    assert load_tree(oci(args=["b"])).tasks["a"].args == ("b",)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("/", "is the root folder"),
        ("//", "is the root folder"),
        ("/./", "is the root folder"),
        ("..", "contains '..'"),
        ("../data", "contains '..'"),
        ("/data/../etc", "contains '..'"),
        ("", "is empty"),
        ("a\nb", "contains characters that cannot be shown"),
        ("x" * 4_001, "is over 4,000 bytes long"),
    ],
)
def test_sources_of_mounts(source, fault):
    told = only(oci(mounts=[{"source": source, "target": "/data"}]))
    assert told.startswith("tasks.a.mounts[0].source: ") and fault in told


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("/", "is the root folder"),
        ("data", "is not absolute"),
        ("/data/..", "contains '..'"),
        ("", "is empty"),
        ("/\x1b[0m", "contains characters that cannot be shown"),
        ("/proc", "is in /proc, which is the kernel's (write an absolute path such as /"),
        ("/proc/x", "is in /proc"),
        ("/sys", "is in /sys, which is the kernel's"),
        ("//sys/fs/cgroup/", "is in /sys"),
        ("/dev", "is in /dev, where only /dev/shm can be replaced"),
        ("/dev/null", "is in /dev"),
        ("/dev/shmem", "is in /dev"),
        ("/tow", "is in /tow, which is Towline's own"),
        ("/./tow/out", "is in /tow"),
        ("/tow/out/x", "is in /tow"),
    ],
)
def test_targets_of_mounts_and_inputs(target, fault):
    told = only(oci(mounts=[{"source": ".", "target": target}]))
    assert told.startswith("tasks.a.mounts[0].target: ") and fault in told
    tree = oci(needs=["b"], inputs={"b": target})
    tree["tasks"]["b"] = {"image": "oci:x"}  # type: ignore[index]
    told = only(tree)
    assert told.startswith("tasks.a.inputs.b: ") and fault in told


@pytest.mark.parametrize("target", ["/dev/shm", "/dev/shm/x", "/process", "/data/proc", "/toward", "/system"])
def test_targets_beside_those_of_the_system(target):
    spec = load_tree(oci(mounts=[{"source": ".", "target": target}]))
    assert spec.tasks["a"].mounts[0].target == target


def test_two_mounts_at_one_place():
    mounts = [{"source": ".", "target": "/data"}, {"source": "./x", "target": "/data/./"}]
    assert only(oci(mounts=mounts)) == (
        "tasks.a.mounts[1]: '/data/./' is the target of tasks.a.mounts[0] too (use another one)"
    )


def test_a_mount_and_an_input_at_one_place():
    tree = oci(mounts=[{"source": ".", "target": "/data"}], needs=["b"], inputs={"b": "/data/"})
    tree["tasks"]["b"] = {"image": "oci:x"}  # type: ignore[index]
    assert only(tree).startswith("tasks.a.inputs.b: '/data/' is the target of tasks.a.mounts[0] too")


@pytest.mark.parametrize("mount", ["a:b", {"source": "."}, {"target": "/x"}, None, {"source": ".", "src": 1}])
def test_mounts_that_are_none(mount):
    assert all(found.where.startswith("tasks.a.mounts[0]") for found in tree_problems(oci(mounts=[mount])))


@pytest.mark.parametrize("target", ["/in", "../in", ".", "in/..", "", "a\0b"])
def test_inputs_of_a_plain_process_stay_in_its_folder(target):
    tree = process(needs=["b"], inputs={"b": target})
    tree["tasks"]["b"] = {"image": "oci:x"}  # type: ignore[index]
    assert only(tree).startswith("tasks.a.inputs.b: ")
    tree["tasks"]["a"]["inputs"]["b"] = "in/b"  # type: ignore[index]
    assert load_tree(tree).tasks["a"].inputs == {"b": "in/b"}


def test_working_folders():
    assert only(oci(workdir="work")) == "tasks.a.workdir: 'work' is not absolute (write a path such as /work)"
    assert only(process(workdir="../x")).startswith("tasks.a.workdir: '../x' contains '..'")


def mounted(source: str) -> JobSpec:
    return load_tree(oci(mounts=[{"source": source, "target": "/data"}]))


def test_relative_sources_become_absolute():
    assert resolve_mounts(mounted("./a//b/"), "/jobs").tasks["a"].mounts[0].source == "/jobs/a/b"
    assert resolve_mounts(mounted("."), "/jobs/x").tasks["a"].mounts[0].source == "/jobs/x"
    absolute = mounted("/data")
    assert resolve_mounts(absolute, None) == absolute


@pytest.mark.parametrize("base_dir", [None, "", "relative"])
def test_relative_sources_without_a_folder_are_refused(base_dir):
    with pytest.raises(InvalidDocument) as caught:
        resolve_mounts(mounted("./a"), base_dir)
    assert str(caught.value).startswith("tasks.a.mounts[0].source: is relative, and the job has no base_dir")
