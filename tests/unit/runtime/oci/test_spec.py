"""What an OCI runtime is told: which command runs with which environment, and under which limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import structs

from towline.images import ImageConfig
from towline.model.job import Protection, TaskSpec
from towline.runtime.cgroups import Cgroups
from towline.runtime.oci.config import build_config
from towline.runtime.oci.ids import COUNT, FIRST_ID, Ids
from towline.runtime.oci.probe import probe_oci
from towline.runtime.oci.spec import Isolation, final_argv_env, read_data, runtime_data
from towline.runtime.policy import Policy, Wanted
from towline.runtime.port import Plan, StartFailed

IMAGE = ImageConfig(entrypoint=("entry", "-e"), cmd=("cmd",), env=("PATH=/bin", "A=1"))
ISOLATED = Isolation(ids=Ids(FIRST_ID, COUNT, 0, 0), seccomp="filter")
CGROUPS = Cgroups(2, {"": "/sys/fs/cgroup"}, limits_swap=True)


@pytest.mark.parametrize(
    ("command", "args", "argv"),
    [
        (None, None, ("entry", "-e", "cmd")),
        (None, ("x", "y"), ("entry", "-e", "x", "y")),
        (None, (), ("entry", "-e")),
        (("run",), None, ("run",)),
        (("run",), ("x",), ("run", "x")),
    ],
)
def test_command_replaces_all_and_args_the_arguments_only(
    command: tuple[str, ...] | None, args: tuple[str, ...] | None, argv: tuple[str, ...]
):
    assert final_argv_env(command, args, {}, {}, IMAGE)[0] == argv


def test_nothing_to_run_is_refused():
    with pytest.raises(StartFailed, match="so set command"):
        final_argv_env(None, None, {}, {}, ImageConfig())


def test_tow_variables_cannot_be_replaced():
    env = final_argv_env(
        None, None, {"A": "2", "TOW_OUT": "/x", "TOW_INDEX": "9"}, {"TOW_INDEX": "3"}, IMAGE
    )[1]
    assert env == {"PATH": "/bin", "A": "2", "TOW_INDEX": "3", "TOW_OUT": "/tow/out"}


def test_an_image_without_a_path_gets_the_usual_one():
    assert "/usr/bin" in final_argv_env(("x",), None, {}, {}, ImageConfig())[1]["PATH"].split(":")


def plan(
    tmp_path: Path, task: TaskSpec | None = None, isolation: Isolation = ISOLATED, **fields: Any
) -> Plan:
    data = runtime_data(task or TaskSpec(), str(tmp_path), IMAGE, [str(tmp_path)], isolation)
    given: dict[str, Any] = {
        "attempt": "job1-0-0-1",
        "runtime": "oci",
        "argv": ("x",),
        "env": {},
        "directory": "/d",
        "logs": "/l",
        "out": "/o",
        "timeout_ms": None,
        "grace_ms": 1,
        "max_log_bytes": 1,
        "runtime_data": data,
    }
    return Plan(**{**given, **fields})


def config(plan: Plan, cgroups: Cgroups = CGROUPS) -> dict[str, Any]:
    return build_config(plan, read_data(plan), "/root", cgroups, "c", 500)


@pytest.mark.parametrize(
    ("cpu_milli", "limits"),
    [
        (1000, {"shares": 1024, "quota": 100_000, "period": 100_000}),
        (50, {"shares": 51, "quota": 5_000, "period": 100_000}),
        (10, {"shares": 10, "quota": 1_000, "period": 100_000}),
        (9, {"shares": 9, "quota": 9_000, "period": 1_000_000}),
        (1, {"shares": 2, "quota": 1_000, "period": 1_000_000}),
    ],
)
def test_shares_of_cpu_are_what_the_kernel_takes(tmp_path: Path, cpu_milli: int, limits: dict[str, int]):
    assert config(plan(tmp_path, cpu_milli=cpu_milli))["linux"]["resources"]["cpu"] == limits


def test_swap_is_no_way_around_the_memory_limit(tmp_path: Path):
    made = plan(tmp_path, memory_bytes=1 << 20)
    assert config(made)["linux"]["resources"]["memory"] == {"limit": 1 << 20, "swap": 1 << 20}
    without = CGROUPS._replace(limits_swap=False)
    assert config(made, without)["linux"]["resources"]["memory"] == {"limit": 1 << 20}


def test_the_host_name_is_one(tmp_path: Path):
    long = f"{'x' * 50}-{'1' * 12}-0-1"
    name = config(plan(tmp_path, attempt=long))["hostname"]
    assert len(name) <= 63
    assert name.endswith("-0-1")
    assert not name.startswith("-")


def test_a_plan_of_something_else_is_refused(tmp_path: Path):
    with pytest.raises(StartFailed, match="cannot be used by this build"):
        read_data(plan(tmp_path, runtime_data={"workdir": 3}))


# --- what the machine gives ----------------------------------------------------------------------------


@pytest.mark.containers
@pytest.mark.parametrize("engine", [None, "crun", "runc"])
def test_what_this_machine_gives_is_found_by_trying(tmp_path: Path, engine: str | None):
    found = probe_oci(tmp_path, Wanted(engine=engine))
    assert found.probe.problem is None
    assert set(found.probe.protects) | set(found.probe.lacks) == set(get_args(Protection))
    assert {"memory", "cpu", "pids", "network", "rootfs", "seccomp"} <= set(found.probe.protects)
    assert found.isolation is not None
    assert (found.isolation.ids is not None) == ("userns" in found.probe.protects)
    assert found.isolation.engine == (engine or "crun")
    assert found == probe_oci(tmp_path, Wanted(engine=engine)), "the second time it is known"
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".json"}


@pytest.mark.containers
def test_a_user_namespace_can_be_turned_off(tmp_path: Path):
    found = probe_oci(tmp_path, Wanted(userns=False))
    assert "TOWLINE_OCI_USERNS" in found.probe.lacks["userns"]
    assert found.isolation is not None
    assert found.isolation.ids is None


def test_without_an_engine_the_probe_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "umoci").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = probe_oci(tmp_path, Wanted())
    assert found.probe.problem is not None
    assert "apt-get install crun" in found.probe.problem or "root" in found.probe.problem
    assert (found.probe.protects, found.isolation) == ((), None)


# --- who may what --------------------------------------------------------------------------------------


def test_nothing_is_given_that_was_not_asked_for(tmp_path: Path):
    made = config(plan(tmp_path))
    assert made["process"]["noNewPrivileges"] is True
    assert set(map(tuple, made["process"]["capabilities"].values())) == {()}
    assert {"type": "user"} in made["linux"]["namespaces"]
    assert {"type": "network"} in made["linux"]["namespaces"]
    assert made["linux"]["uidMappings"] == [{"containerID": 0, "hostID": FIRST_ID, "size": COUNT}]
    assert "run.oci.seccomp_bpf_data" in made["annotations"]


def test_capabilities_are_given_where_the_policy_allows_them(tmp_path: Path):
    task = TaskSpec(capabilities=("NET_RAW",))
    with pytest.raises(StartFailed, match="NET_RAW is not allowed on this node, which allows none: leave it"):
        plan(tmp_path, task)
    allows = structs.replace(ISOLATED, policy=Policy(capabilities=("NET_RAW",)))
    given = config(plan(tmp_path, task, allows))["process"]
    assert set(map(tuple, given["capabilities"].values())) == {("CAP_NET_RAW",)}
    assert given["noNewPrivileges"] is True


def test_privileged_is_refused_unless_the_node_says_otherwise(tmp_path: Path):
    task = TaskSpec(privileged=True)
    with pytest.raises(StartFailed, match="privileged containers are not allowed on this node"):
        plan(tmp_path, task)
    made = config(plan(tmp_path, task, structs.replace(ISOLATED, policy=Policy(privileged=True))))
    assert {"type": "user"} not in made["linux"]["namespaces"]
    assert "annotations" not in made
    assert "CAP_SYS_ADMIN" in made["process"]["capabilities"]["effective"]
    assert made["linux"]["maskedPaths"] == []


def test_the_tasks_user_comes_before_the_images(tmp_path: Path):
    given = config(plan(tmp_path, TaskSpec(user="1000:50")))["process"]["user"]
    assert (given["uid"], given["gid"]) == (1000, 50)
    with pytest.raises(StartFailed, match="The image has no user 'nosuch' in its /etc/passwd: correct user"):
        plan(tmp_path, TaskSpec(user="nosuch"))
    only = structs.replace(ISOLATED, policy=Policy(users=("1001",)))
    with pytest.raises(StartFailed, match="user: '1000' is not allowed on this node, which allows 1001"):
        plan(tmp_path, TaskSpec(user="1000"), only)
    with pytest.raises(StartFailed, match="beyond the 65536 ids of its user namespace"):
        plan(tmp_path, TaskSpec(user="65536"))


def test_runc_gets_the_profile_in_its_own_words(tmp_path: Path):
    made = config(plan(tmp_path, isolation=structs.replace(ISOLATED, engine="runc", seccomp="section")))
    assert made["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "annotations" not in made


@pytest.mark.parametrize(
    ("owner", "inside", "lines"),
    [
        (0, 0, "0 1000013824 1\n1000013825 1000013825 65535\n"),
        (1000, 5, "1000 1000013829 1\n1000013824 1000013824 5\n1000013830 1000013830 65530\n"),
        (0, 65535, "0 1000079359 1\n1000013824 1000013824 65535\n"),
        (FIRST_ID + 3, 0, "1000013824 1000013824 65536\n"),
    ],
)
def test_the_submitting_user_stands_for_the_commands(owner: int, inside: int, lines: str):
    assert Ids(FIRST_ID, COUNT, owner, owner).folder_lines(owner, inside) == lines
