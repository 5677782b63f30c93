"""What an Engine is asked for, and what its refusals are told as."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from towline.model.job import Mount, TaskSpec
from towline.model.states import Reason
from towline.runtime.docker import places
from towline.runtime.docker.faults import pull_failure, start_failure
from towline.runtime.docker.places import closed_socket, find_engine
from towline.runtime.docker.probe import probe_docker, protects, traits_of
from towline.runtime.docker.seccomp import Profiles
from towline.runtime.docker.spec import Traits, container_config, docker_data, read_data
from towline.runtime.policy import Policy
from towline.runtime.port import Plan, StartFailed


def plan_of(task: TaskSpec, roots: list[str], policy: Policy | None = None, **fields: Any) -> Plan:
    given = {
        "attempt": "job-0-0-1",
        "runtime": "docker",
        "argv": ("sh", "-c", "true"),
        "env": {"PATH": "/bin", "A": "1"},
        "directory": "/n/attempts/x",
        "logs": "/n/output/x",
        "out": "/n/out",
        "timeout_ms": None,
        "grace_ms": 1000,
        "max_log_bytes": 1 << 20,
        "cpu_milli": 1500,
        "memory_bytes": 64 << 20,
        "pids": 32,
        "runtime_data": docker_data(task, "sha256:1", "sha256:2", "app", "/srv", roots, policy or Policy()),
    }
    return Plan(**(given | fields))


def test_nothing_is_given_that_was_not_asked_for() -> None:
    config = container_config(plan_of(TaskSpec(), []), "n1", Traits(), "/towline/x")
    host = config["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] == []
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert "Privileged" not in host
    assert host["NetworkMode"] == "none"
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (64 << 20, 64 << 20, 32)
    assert host["CpuQuota"] / host["CpuPeriod"] == 1.5
    assert (config["User"], config["WorkingDir"]) == ("app", "/srv")
    assert config["Labels"] == {"towline.attempt": "job-0-0-1", "towline.node": "n1"}
    assert host["LogConfig"]["Type"] == "local"
    assert "CgroupParent" not in host


def test_mounts_are_in_order_of_depth_and_inputs_are_read_only(tmp_path: Path) -> None:
    task = TaskSpec(mounts=(Mount(source=str(tmp_path), target="/data/deep", readonly=False),))
    plan = plan_of(task, [str(tmp_path)], inputs=(("/n/in", "/data"),))
    mounts = container_config(plan, "n1", Traits(), "")["HostConfig"]["Mounts"]
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in mounts] == [
        ("/n/in", "/data", True),
        (str(tmp_path), "/data/deep", False),
        ("/n/out", "/tow/out", False),
    ]


def test_the_node_refuses_what_its_policy_and_folders_do_not_allow(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="privileged"):
        plan_of(TaskSpec(privileged=True), [])
    with pytest.raises(StartFailed, match="refused"):
        plan_of(TaskSpec(mounts=(Mount(source="/etc", target="/x"),)), [str(tmp_path)])
    task = TaskSpec(capabilities=("NET_RAW",))
    config = container_config(plan_of(task, [], Policy(capabilities=("NET_RAW",))), "n", Traits(), "")
    assert config["HostConfig"]["CapAdd"] == ["NET_RAW"]


def host_config(traits: Traits, seccomp: str | None = None, **fields: Any) -> dict[str, Any]:
    return container_config(plan_of(TaskSpec(), [], **fields), "n", traits, "", seccomp)["HostConfig"]


def test_a_disk_has_an_end_where_the_storage_driver_can() -> None:
    assert host_config(Traits(disk=True), disk_bytes=1 << 20)["StorageOpt"] == {"size": "1048576"}
    assert "StorageOpt" not in host_config(Traits(), disk_bytes=1 << 20)
    assert "StorageOpt" not in host_config(Traits(disk=True))


def test_gpus_are_device_nodes_or_asked_of_nvidias_runtime() -> None:
    plain = host_config(Traits(), devices=("/dev/fake0",))
    assert plain["Devices"] == [
        {"PathOnHost": "/dev/fake0", "PathInContainer": "/dev/fake0", "CgroupPermissions": "rw"}
    ]
    gpus = {"devices": ("/dev/nvidia1", "/dev/nvidiactl"), "env": {"NVIDIA_VISIBLE_DEVICES": "GPU-1,GPU-2"}}
    asked = host_config(Traits(nvidia=True), **gpus)
    assert asked["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["GPU-1", "GPU-2"], "Capabilities": [["gpu"]]}
    ]
    assert "Devices" not in asked
    assert "DeviceRequests" not in host_config(Traits(nvidia=True), devices=("/dev/fake0",))
    with pytest.raises(StartFailed, match="/dev/no-such-device cannot be given"):
        host_config(Traits(local=True), devices=("/dev/no-such-device",))


def test_our_seccomp_profile_is_given_as_the_engine_takes_it(tmp_path: Path) -> None:
    data = read_data(plan_of(TaskSpec(), []))
    text = Profiles(Traits(seccomp="inline"), tmp_path).option(data)
    assert text is not None
    assert json.loads(text)["defaultAction"] == "SCMP_ACT_ERRNO"
    assert host_config(Traits(), text)["SecurityOpt"] == ["no-new-privileges", f"seccomp={text}"]
    path = Profiles(Traits(seccomp="file"), tmp_path / "new").option(data)
    assert path is not None
    assert Path(path).read_text() == text
    assert Profiles(Traits(), tmp_path).option(data) is None
    privileged = read_data(plan_of(TaskSpec(privileged=True), [], Policy(privileged=True)))
    assert Profiles(Traits(seccomp="inline"), tmp_path).option(privileged) is None


@pytest.mark.parametrize(
    ("info", "disk", "first_ids"),
    [
        ({"Driver": "zfs"}, True, (0, 0)),
        ({"Driver": "overlay2", "DockerRootDir": "/proc"}, False, (0, 0)),
        ({"Driver": "btrfs", "DockerRootDir": "/d/165536.165537"}, False, (0, 0)),
        ({"SecurityOptions": ["name=userns"], "DockerRootDir": "/d/165536.165537"}, False, (165536, 165537)),
    ],
)
def test_what_an_engine_is_like(info: dict[str, Any], disk: bool, first_ids: tuple[int, int]) -> None:
    here = {**info, "KernelVersion": os.uname().release}
    traits = traits_of("unix:///x", here, podman=False)
    assert (traits.local, traits.disk, traits.first_ids) == (True, disk, first_ids)
    assert not traits_of("unix:///x", {**info, "KernelVersion": "another"}, podman=False).local
    assert not traits_of("tcp://x:1", here, podman=False).disk


@pytest.mark.parametrize(
    ("said", "words", "reason"),
    [
        ('exec: "nope": executable file not found in $PATH: unknown', "no program 'sh'", "start_failed"),
        ("exec /x: exec format error", "for this machine", "start_failed"),
        ('exec: "/": permission denied', "not executable", "start_failed"),
        ("unable to find user bob: no matching entries", "no such user", "start_failed"),
        ("Minimum memory limit allowed is 6MB", "too little", "oom_killed"),
        ("write /x: no space left on device", "no space left", "disk_full"),
        ("something else", "something else", "start_failed"),
    ],
)
def test_refusals_in_words(said: str, words: str, reason: str) -> None:
    error = start_failure(plan_of(TaskSpec(), []), said, "/srv")
    assert words in str(error)
    assert error.reason == reason


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("manifest for x:1 not found: manifest unknown: manifest unknown", Reason.IMAGE_NOT_FOUND),
        (
            "pull access denied for x, repository does not exist or may require 'docker login'",
            Reason.IMAGE_AUTH,
        ),
        ("unauthorized: authentication required", Reason.IMAGE_AUTH),
        ("dial tcp 1.2.3.4:443: i/o timeout", Reason.IMAGE_PULL_TIMEOUT),
        ("filesystem layer verification failed for digest sha256:1", Reason.IMAGE_CORRUPT),
        ("write /x: no space left on device", Reason.DISK_FULL),
    ],
)
def test_pulls_that_fail(said: str, reason: Reason) -> None:
    text, found = pull_failure("x:1", said)
    assert found == reason
    assert "x:1" in text


def test_the_engine_is_looked_for_where_clients_look(tmp_path: Path) -> None:
    assert find_engine({"DOCKER_HOST": "tcp://there:1"}) == "tcp://there:1"
    run = tmp_path / "podman"
    run.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run / "podman.sock"))
        found = find_engine(environ, home=str(tmp_path))
        assert found in (f"unix://{run}/podman.sock", "unix:///var/run/docker.sock")


def test_a_socket_of_somebody_else_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    monkeypatch.setattr(places, "SYSTEM", str(tmp_path / "docker.sock"))
    monkeypatch.setattr(places, "_is_ours", lambda path: False)
    assert closed_socket(environ) is None
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        closed = closed_socket(environ)
        assert closed is not None
        assert (closed.path, closed.owner.count(":")) == (str(tmp_path / "docker.sock"), 1)
        said = probe_docker(environ).probe.problem
    assert said is not None
    assert f"belongs to {closed.owner}" in said
    assert f"usermod -aG {closed.group}" in said


def test_an_engine_that_does_not_answer_is_a_problem_with_a_remedy(tmp_path: Path) -> None:
    found = probe_docker({"DOCKER_HOST": f"unix://{tmp_path}/nothing"})
    assert found.url is None
    assert found.probe.problem is not None
    assert "start it" in found.probe.problem


def test_what_an_engine_protects_is_what_it_says() -> None:
    assert protects({}) == ("network", "rootfs")
    assert protects({}, disk=True) == ("disk", "network", "rootfs")
    options = {"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"], "MemoryLimit": True}
    assert protects(options) == ("userns", "seccomp", "memory", "network", "rootfs")
    assert "seccomp" not in protects({"SecurityOptions": ["name=seccomp,profile=unconfined"]})


def test_limits_that_a_rootless_engine_takes_and_ignores_are_none() -> None:
    given = {"MemoryLimit": True, "CpuCfsQuota": True, "PidsLimit": True, "Rootless": True}
    assert protects({**given, "CgroupVersion": "1"}) == ("userns", "network", "rootfs")
    assert protects({**given, "CgroupVersion": "2"}) == (
        "userns", "memory", "cpu", "pids", "network", "rootfs",
    )  # fmt: skip
