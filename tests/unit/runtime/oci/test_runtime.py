"""Real containers by crun: what they see, how they end, what is counted, and that nothing is left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest
from tests.container_host import Failed, Host, start_host

from towline.images import Image
from towline.model.job import Mount, TaskSpec
from towline.model.states import Reason
from towline.runtime.cgroups import cgroup_name, find_cgroups
from towline.runtime.oci.runtime import OciRuntime
from towline.runtime.port import Plan, StartFailed

pytestmark = pytest.mark.containers


def leftovers(host: Host, plan: Plan) -> list[str]:
    """Every trace of an attempt that is not its output."""
    folders = find_cgroups().folders(cgroup_name(plan.attempt, str(host.node_dir)))
    places = [plan.directory, f"{host.node_dir}/{host.isolation.engine}/{plan.attempt}", *folders]
    mounted = [line for line in mounts_of(host) if plan.attempt in line]
    return [place for place in places if Path(place).exists()] + mounted


def mounts_of(host: Host) -> list[str]:
    return Path(f"/proc/{host.process.pid}/mountinfo").read_text().splitlines()


# --- endings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 3, 125, 255])
def test_the_exit_code_is_exact(host: Host, code: int):
    assert host.run("sh", "-c", f"exit {code}").status == code


def test_a_signal_is_told_as_such(host: Host):
    plan = host.plan("sleep", "1000")
    host.start(plan)
    host.signal(plan, signal.SIGKILL)
    assert host.finish(plan).status == -signal.SIGKILL
    assert leftovers(host, plan) == []


def test_nothing_is_left_and_crun_is_not_asked_again(host: Host):
    plan = host.plan("sh", "-c", "echo hello > /file; sleep 0 & true")
    host.start(plan)
    result = host.finish(plan)
    assert result.status == 0
    assert result.helper is None
    assert leftovers(host, plan) == []


def test_many_files_are_left_to_a_helper(host: Host):
    plan = host.plan("sh", "-c", "mkdir /m; for i in $(seq 500); do echo > /m/$i; done")
    host.start(plan)
    result = host.finish(plan)
    assert result.helper is not None
    assert result.helper[0] == "rm"
    assert leftovers(host, plan) == []


def test_a_large_file_is_left_to_a_helper(host: Host):
    plan = host.plan("dd", "if=/dev/zero", "of=/large", "bs=1M", "count=40")
    host.start(plan)
    result = host.finish(plan)
    assert result.helper is not None
    assert result.helper[0] == "rm"
    assert leftovers(host, plan) == []


def test_more_memory_than_the_limit_is_an_oom_kill(host: Host):
    command = "x=a; while true; do x=$x$x; done"
    result = host.run("sh", "-c", command, memory_bytes=16 << 20)
    assert result.status == -signal.SIGKILL
    assert result.usage["oom_killed"]
    assert 14 << 20 <= result.usage["peak_memory_bytes"] <= 16 << 20


def test_what_was_used_is_counted(host: Host):
    result = host.run(
        "sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; dd if=/dev/zero bs=8M count=1"
    )
    assert not result.usage["oom_killed"]
    assert result.usage["cpu_ms"] > 20
    assert result.usage["peak_memory_bytes"] > 8 << 20


# --- what it sees ------------------------------------------------------------------------------------


def test_output_goes_to_its_two_streams(host: Host):
    result = host.run("sh", "-c", "echo out; echo err >&2; echo again > /dev/stderr; echo too > /dev/stdout")
    assert result.out == "out\ntoo\n"
    assert result.err == "err\nagain\n"


def test_a_user_without_rights_may_reopen_its_output(host: Host):
    result = host.run("sh", "-c", "echo again > /dev/stderr; id", image={"user": "user"})
    assert result.err == "again\n"
    assert "uid=1000(user) gid=1000(user) groups=50(staff)" in result.out


def test_the_devices_of_the_machine_stay_as_they_are(host: Host):
    os.chown("/dev/null", 0, 0)  # as it is where nobody has run a crun without this care
    before = Path("/dev/null").stat()
    for user in ("1000", "0"):
        result = host.run("sh", "-c", "cat; echo > /dev/null", image={"user": user})
        assert (result.status, result.out) == (0, ""), result.err
        after = Path("/dev/null").stat()
        assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_its_environment_is_the_images_the_tasks_and_tows(host: Host):
    result = host.run("env", env={"A": "x=y", "PATH": "/bin:/sbin"}, image={"env": ("A=1", "B=2", "bad")})
    env = dict(line.split("=", 1) for line in result.out.splitlines())
    assert env == {
        "PATH": "/bin:/sbin",
        "A": "x=y",
        "B": "2",
        "TOW_ATTEMPT": "1",
        "TOW_OUT": "/tow/out",
        "HOME": "/root",
    }


def test_it_has_no_capabilities_and_gets_no_new_ones(host: Host):
    lines = host.run("cat", "/proc/self/status").out.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_it_is_alone_in_its_namespaces(host: Host):
    result = host.run("sh", "-c", "echo $$; ls -d /proc/[0-9]*; hostname; ls /sys/class/net")
    assert result.out.splitlines()[:2] == ["1", "/proc/1"]
    assert "-0-0-1" in result.out
    assert result.out.splitlines()[-1] == "lo"


def test_the_network_of_the_machine_must_be_asked_for(host: Host):
    result = host.run("cat", "/proc/net/dev", task=TaskSpec(network="host"))
    ours = Path("/proc/net/dev").read_text()
    assert [line.split(":")[0] for line in result.out.splitlines()] == [
        line.split(":")[0] for line in ours.splitlines()
    ]


def test_the_system_is_read_only(host: Host):
    script = """
    for file in /proc/sys/kernel/hostname /sys/kernel/mm/x /proc/sysrq-trigger /sys/fs/cgroup/*/x; do
        (echo x > $file) 2>/dev/null && echo wrote $file
    done
    mkdir /sys/fs/cgroup/memory/x 2>/dev/null && echo made a cgroup
    mknod /tmp/sda b 8 0 2>/dev/null && echo made a device
    mount -t tmpfs none /tmp 2>/dev/null && echo mounted
    cat /proc/kcore 2>/dev/null | head -c 1
    chroot / true 2>/dev/null && echo changed root
    true
    """
    result = host.run("sh", "-c", script)
    assert (result.status, result.out) == (0, "")


def test_it_sees_its_own_limits(host: Host):
    script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us"
    if find_cgroups().version == 2:
        script = "cd /sys/fs/cgroup; cat memory.max pids.max; cut -d' ' -f1 cpu.max"
    result = host.run("sh", "-c", script, memory_bytes=32 << 20, pids=17, cpu_milli=500)
    assert result.out.split() == [str(32 << 20), "17", "50000"]


def test_the_least_share_of_cpu_is_one_that_the_kernel_takes(host: Host):
    assert host.run("true", cpu_milli=1).status == 0


def test_processes_are_limited(host: Host):
    result = host.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 10 & done; echo", pids=4)
    assert "can't fork" in result.err


def test_what_it_writes_into_its_root_is_its_own(host: Host):
    host.run("sh", "-c", "echo changed > /etc/passwd; rm /bin/ls")
    assert "root:" in host.run("cat", "/etc/passwd").out
    assert host.run("ls", "/").status == 0


def test_a_node_folder_may_have_commas_colons_and_backslashes_in_its_name(host: Host, tmp_path: Path):
    host.folder = tmp_path / "a,b:c\\d"
    host.folder.mkdir()
    plan = host.plan("sh", "-c", "echo > /x; ls /x; ls -d / /tmp; stat -c %a /")
    host.start(plan)
    result = host.finish(plan)
    assert (result.status, result.err) == (0, "")
    assert result.out.split()[-1] == "755"
    assert leftovers(host, plan) == []


@pytest.mark.parametrize("name", ["a,b:c\\d e", "%s\"'ä"])
def test_everything_of_a_node_may_lie_in_a_folder_of_any_name(image: Image, tmp_path: Path, name: str):
    node = tmp_path / name
    rootfs = Path(shutil.copytree(image.rootfs, node / "images/rootfs", symlinks=True))
    with start_host(node) as process:
        host = process.of(image._replace(rootfs=rootfs), node)
        result = host.run("ls", "/tow/out", "/in", inputs=((str(rootfs / "bin"), "/in"),))
        assert (result.status, result.err) == (0, "")
        assert "busybox" in result.out
        with pytest.raises(Failed, match="no program 'nosuch' in the image"):
            host.run("nosuch")


def test_the_workdir_of_the_task_comes_before_the_images(host: Host):
    assert host.run("pwd", image={"workdir": "/tmp"}).out == "/tmp\n"
    assert host.run("pwd", image={"workdir": "/tmp"}, task=TaskSpec(workdir="/var/new")).out == "/var/new\n"


# --- folders from outside ------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [None, "user", "65534:65534"])
def test_what_it_writes_to_tow_out_is_kept(host: Host, user: str | None):
    plan = host.plan("sh", "-c", "echo result > $TOW_OUT/file", image={"user": user})
    host.start(plan)
    assert host.finish(plan).err == ""
    assert Path(plan.out, "file").read_text() == "result\n"


def test_inputs_are_read_only(host: Host, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/data").write_text("data")
    script = "cat /in/a/data; rm /in/a/data"
    result = host.run("sh", "-c", script, inputs=((str(tmp_path / "in"), "/in/a"),))
    assert result.out == "data"
    assert "Read-only file system" in result.err


def test_mounts_are_as_they_were_asked_for(host: Host, tmp_path: Path):
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("content")
    mounts = (
        Mount(source=str(tmp_path / "two"), target="/m/below", readonly=True),
        Mount(source=str(tmp_path / "one"), target="/m"),
        Mount(source=str(tmp_path / "file"), target="/etc/some/file", readonly=True),
    )
    script = "echo a > /m/a; echo b > /m/below/b; cat /etc/some/file; echo x > /etc/some/file"
    result = host.run("sh", "-c", script, task=TaskSpec(mounts=mounts))
    assert (tmp_path / "one/a").read_text() == "a\n"
    assert list((tmp_path / "two").iterdir()) == []
    assert result.out == "content"
    assert result.err.count("Read-only file system") == 2


def test_a_mount_in_a_read_only_one_needs_its_folder_there(host: Host, tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "two/file").write_text("content")
    mounts = (
        Mount(source=str(tmp_path / "one"), target="/m", readonly=True),
        Mount(source=str(tmp_path / "two"), target="/m/below"),
    )
    with pytest.raises(Failed, match="Nothing can be shown at '/m/below': it lies in a folder that is read"):
        host.run("true", task=TaskSpec(mounts=mounts))
    (tmp_path / "one/below").mkdir()
    assert host.run("cat", "/m/below/file", task=TaskSpec(mounts=mounts)).out == "content"


def test_a_mount_that_became_a_symlink_is_refused(host: Host, tmp_path: Path):
    (tmp_path / "data").mkdir()
    plan = host.plan(
        "ls", "/data", task=TaskSpec(mounts=(Mount(source=str(tmp_path / "data"), target="/data"),))
    )
    (tmp_path / "data").rmdir()
    (tmp_path / "data").symlink_to("/etc")
    with pytest.raises(Failed, match="cannot be mounted any more") as caught:
        host.start(plan)
    assert caught.value.reason == Reason.START_FAILED
    assert leftovers(host, plan) == []


# --- starts that fail --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("nosuch", "no program 'nosuch' in the image"),
        ("/bin/nosuch", "no file '/bin/nosuch' in the image"),
        ("/etc/passwd", "'/etc/passwd' in the image is not executable"),
        ("/etc", "'/etc' in the image is no program"),
    ],
)
def test_a_command_that_cannot_be_run(host: Host, command: str, says: str):
    plan = host.plan(command)
    with pytest.raises(Failed, match=says) as caught:
        host.start(plan)
    assert caught.value.reason == Reason.START_FAILED
    assert leftovers(host, plan) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("#!/nope -x\n", "'tool' in the image cannot be executed: its first line asks for '/nope -x': add"),
        ("echo hello\n", "no program for this machine; a script needs a first line such as #!/bin/sh"),
        ("x" * 100_000, "it may be for another machine"),
    ],
)
def test_a_program_that_the_kernel_does_not_execute(
    host: Host, image: Image, tmp_path: Path, content: str, says: str
):
    host.image = image._replace(rootfs=Path(shutil.copytree(image.rootfs, tmp_path / "image", symlinks=True)))
    tool = tmp_path / "image/bin/tool"
    tool.write_text(content)
    tool.chmod(0o755)
    plan = host.plan("tool")
    host.start(plan)
    with pytest.raises(Failed, match=re.escape(says)) as caught:
        host.finish(plan)
    assert caught.value.reason == Reason.START_FAILED
    assert leftovers(host, plan) == []


def test_a_first_process_that_was_reaped_unexecuted_is_a_failed_start(host: Host, tmp_path: Path):
    with pytest.raises(StartFailed, match="'tool' in the image cannot be executed"):
        OciRuntime(str(tmp_path)).measure(host.plan("tool"), executed=False)


def test_a_workdir_that_is_a_file(host: Host):
    with pytest.raises(Failed, match="workdir '/etc/passwd' cannot be entered"):
        host.run("true", task=TaskSpec(workdir="/etc/passwd"))


def test_too_little_memory_to_start(host: Host):
    with pytest.raises(Failed, match="too little to start") as caught:
        host.run("true", memory_bytes=100_000)
    assert caught.value.reason == Reason.OOM_KILLED


def test_a_lost_image_says_what_is_missing(host: Host):
    plan = host.plan("true")
    plan.runtime_data["rootfs"] = "/nowhere"
    with pytest.raises(Failed, match="/nowhere"):
        host.start(plan)
    assert leftovers(host, plan) == []


# --- signals ---------------------------------------------------------------------------------------------


def test_a_handler_for_sigterm_is_heard(host: Host):
    plan = host.plan("sh", "-c", "trap 'echo heard; exit 7' TERM; echo ready; while :; do sleep 0.05; done")
    host.start(plan)
    assert host.read_line(plan) == "ready"
    host.signal(plan, signal.SIGTERM)
    result = host.finish(plan)
    assert (result.out, result.status) == ("heard\n", 7)


def test_a_lone_process_without_a_handler_ends_at_sigterm(host: Host):
    plan = host.plan("sleep", "1000")
    host.start(plan)
    host.signal(plan, signal.SIGTERM)
    assert host.finish(plan).status == -signal.SIGKILL


def test_a_shell_passes_sigterm_on_to_what_it_waits_for(host: Host):
    child = "trap 'echo child heard; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    plan = host.plan("sh", "-c", f'sh -c "{child}"; echo parent goes on with $?')
    host.start(plan)
    assert host.read_line(plan) == "ready"
    host.signal(plan, signal.SIGTERM)
    assert host.finish(plan).out == "child heard\nparent goes on with 3\n"


def test_sigkill_ends_every_process(host: Host):
    plan = host.plan("sh", "-c", "setsid sleep 1000 & setsid sleep 1000 & echo ready; wait")
    host.start(plan)
    assert host.read_line(plan) == "ready"
    host.signal(plan, signal.SIGKILL)
    assert host.finish(plan).status == -signal.SIGKILL
    assert leftovers(host, plan) == []


# --- after the death of a supervisor -----------------------------------------------------------------


def test_a_running_container_of_a_dead_supervisor_is_taken_away(host: Host):
    plan = host.plan("sh", "-c", "echo ready; sleep 1000")
    host.start(plan)
    assert host.read_line(plan) == "ready"
    assert host.clean(plan) is not None
    assert leftovers(host, plan) == []
    assert host.clean(plan) is None, "a second time there is nothing to do"


def test_a_start_that_was_cut_off_leaves_nothing(host: Host):
    """Every step of a start may be the last one: here its folders are there and crun is at work."""
    plan = host.plan("sleep", "1000")
    Path(plan.directory).mkdir()
    # A process that looks like a starter which has made nothing yet.
    engine = host.isolation.engine
    argv = [engine, "-c", "echo ready; read line", f"{host.node_dir}/{engine}", "run", plan.attempt]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, executable="/bin/sh", stdin=pipe, stdout=pipe) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"ready\n"
        host.clean(plan)
        assert starter.wait(60) == -signal.SIGKILL
    assert host.clean(plan) is None
    assert leftovers(host, plan) == []


def test_half_a_container_of_crun_is_taken_away(host: Host):
    plan = host.plan("true")
    state = Path(f"{host.node_dir}/{host.isolation.engine}/{plan.attempt}")
    state.mkdir(parents=True)
    (state / "config.json").write_text("{}")
    assert host.clean(plan) is not None
    assert leftovers(host, plan) == []


def test_a_start_that_was_cut_off_before_its_spawn_can_be_repeated(host: Host):
    plan = host.plan("cat", "/left", "/etc/hosts")
    Path(plan.directory, "upper").mkdir(parents=True)
    Path(plan.directory, "upper/left").write_text("of the first time")
    Path(plan.directory, "work/work/incompat/volatile").mkdir(parents=True)
    Path(plan.out).mkdir()
    host.ask("start", plan=msgspec.to_builtins(plan))
    result = host.finish(plan)
    assert "of the first time" not in result.out
    assert "localhost" in result.out
    assert leftovers(host, plan) == []
