"""What a user sees of isolation at the terminal: rights refused or given, limits, what is required."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.e2e.home import Home, Maker

from towline.runtime.oci.ids import FIRST_ID

pytestmark = pytest.mark.containers


@pytest.fixture
def task(busybox_image: str) -> Maker:
    return Maker(busybox_image)


def submitted(home: Home, task: dict[str, Any], *options: str, status: int = 0) -> Any:
    return home.tow("run", home.job_file({"t": task}), *options, status=status)


def output(home: Home) -> str:
    return home.tow("logs", "job").stdout


@pytest.mark.parametrize("engine", ["crun", pytest.param("runc", marks=pytest.mark.own_home)])
def test_the_default_is_no_rights_at_all(home: Home, task: Maker, engine: str) -> None:
    if engine != "crun":  # which is taken where nothing is said
        home.env["TOWLINE_OCI_RUNTIME"] = engine
    script = "cat /proc/self/status /proc/self/uid_map; echo > $TOW_OUT/file"
    submitted(home, task(script))
    said = output(home)
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in said
    assert re.search(rf"^\s+0\s+{FIRST_ID}\s+65536$", said, re.MULTILINE)
    node = home.json("nodes")["nodes"][0]
    assert {"userns", "seccomp", "memory", "cpu", "pids", "network", "rootfs"} <= set(node["protects"]["oci"])


def test_more_rights_are_refused_when_a_job_is_submitted(home: Home, task: Maker) -> None:
    wanted = task("true", capabilities=["NET_RAW"], privileged=True)
    said = submitted(home, wanted, status=2).stderr
    assert "tasks.t.capabilities" in said
    assert "NET_RAW is not allowed on this node, which allows none" in said
    assert "TOWLINE_POLICY_CAPABILITIES=NET_RAW" in said
    assert "privileged containers are not allowed on this node" in said
    assert home.jobs() == []


@pytest.mark.own_home
def test_an_operator_may_allow_rights(home: Home, task: Maker) -> None:
    home.env["TOWLINE_POLICY_CAPABILITIES"] = "NET_RAW,CHOWN"
    submitted(home, task("grep CapEff /proc/self/status; id", capabilities=["NET_RAW"], user="1000:50"))
    said = output(home)
    assert "CapEff:\t0000000000002000" in said
    assert "uid=1000(user) gid=50(staff)" in said


def test_what_a_task_requires_is_asked_of_the_node(home: Home, task: Maker) -> None:
    submitted(home, task("echo here", require=["userns", "seccomp", "memory"]))
    assert "here" in output(home)


@pytest.mark.own_home
def test_without_a_user_namespace_what_requires_one_waits(home: Home, task: Maker) -> None:
    home.env["TOWLINE_OCI_USERNS"] = "false"
    home.submit({"t": task("true", require=["userns"])})
    assert "userns" in home.tow("why", "job").stdout
    said = home.tow("doctor").stdout
    assert "has no userns: it is turned off: leave out TOWLINE_OCI_USERNS" in said


def test_a_disk_ends_where_the_task_says(home: Home, task: Maker) -> None:
    script = "dd if=/dev/zero of=/big bs=1M count=64"
    said = submitted(home, task(script, resources={"disk": "16Mi"}), status=1)
    assert "It wrote more than its disk of 16 MiB: raise resources.disk." in said.stdout + said.stderr


def test_too_little_memory_is_said_with_limit_and_peak(home: Home, task: Maker) -> None:
    said = submitted(home, task("x=a; while :; do x=$x$x; done"), status=1)
    assert re.search(r"\(limit 32 MiB, peak [0-9.]+ MiB\): raise resources.memory", said.stdout + said.stderr)


def test_a_mount_is_the_submitting_users(home: Home, task: Maker) -> None:
    data = home.work / "data"
    data.mkdir()
    (data / "secret").write_text("of the user\n")
    (data / "secret").chmod(0o600)
    mounts = [{"source": "./data", "target": "/data"}]
    submitted(home, task("cat /data/secret; echo new > /data/new; id -u", mounts=mounts, user="1000"))
    assert output(home).split() == ["of", "the", "user", "1000"]
    assert (data / "new").stat().st_uid == data.stat().st_uid


def test_the_doctor_says_what_each_engine_protects(home: Home) -> None:
    said = home.tow("doctor", status=None).stdout
    for engine in ("crun", "runc"):
        line = next(line for line in said.splitlines() if line.startswith(f"  {engine}:"))
        assert "protects by cpu" in line
        assert "seccomp" in line
    found = home.json("doctor", status=None)["engines"]
    assert found["crun"]["lacks"].keys().isdisjoint(found["crun"]["protects"])
