"""What a container tries in vain: probes of the kernel from inside, and ways to files of the machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.container_host import Host

from towline.images import Image
from towline.model.job import Mount, TaskSpec
from towline.runtime.seccomp import load_profile, native_machine

pytestmark = pytest.mark.containers

PROBE = Path(__file__).with_name("attempts_to_escape.py")
DENIED = {"EPERM", "EACCES", "EROFS", "ENOENT", "ESRCH", "ENOSYS", "empty"}


def numbers() -> str:
    machine = native_machine()
    assert machine is not None
    return json.dumps(load_profile(machine, frozenset()).numbers)


def with_python(folder: Path) -> tuple[tuple[str, str], ...]:
    """Inputs that show a container this machine's Python and libraries, and the probe."""
    (folder / "probe").mkdir()
    shutil.copy(PROBE, folder / "probe")
    base = Path(sys.base_prefix).resolve()
    shown = {"/usr": "/usr", "/lib": os.path.realpath("/lib"), "/lib64": os.path.realpath("/lib64")}
    if not base.is_relative_to("/usr"):
        shown[str(base)] = str(base)
    library = Path(str(sysconfig.get_config_var("LIBDIR") or base)).resolve()
    if not library.is_relative_to("/usr") and not library.is_relative_to(base):
        shown[str(library)] = str(library)
    shown["/probe"] = str(folder / "probe")
    return tuple((source, target) for target, source in shown.items())


@pytest.mark.parametrize("user", [None, "1000"])
def test_the_kernel_gives_nothing_that_opens_the_machine(host: Host, tmp_path: Path, user: str | None):
    python = str(Path(sys.executable).resolve())
    argv = (python, "-I", f"/probe/{PROBE.name}", str(os.getpid()), numbers())
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    result = host.run(*argv, task=TaskSpec(user=user), inputs=with_python(tmp_path))
    assert result.status == 0, result.err
    found = json.loads(result.out)
    descriptors = found.pop("descriptors")
    assert {name: answer for name, answer in found.items() if answer not in DENIED} == {}
    assert descriptors[:3] == [0, 1, 2]
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_who_asks_for_a_capability_has_that_and_no_other(host: Host, tmp_path: Path):
    python = str(Path(sys.executable).resolve())
    argv = (python, "-I", f"/probe/{PROBE.name}", str(os.getpid()), numbers())
    task = TaskSpec(capabilities=("NET_RAW",), user="1000")
    found = json.loads(host.run(*argv, task=task, inputs=with_python(tmp_path)).out)
    del found["descriptors"]
    allowed = {name for name, answer in found.items() if answer not in DENIED}
    assert allowed == {"packets", "raw ip"}


def test_no_descriptor_of_the_machine_comes_along(host: Host):
    assert host.run("sh", "-c", "ls /proc/self/fd | head -c 6").out.split() == ["0", "1", "2"]


@pytest.mark.parametrize("number", range(3, 12))
def test_a_workdir_of_a_leaked_descriptor_leads_nowhere(host: Host, number: int):
    """CVE-2024-21626: a folder of the machine that the engine has open."""
    plan = host.plan("sh", "-c", "cat ../../../../etc/hostname; ls ../..", task=TaskSpec(
        workdir=f"/proc/self/fd/{number}"))  # fmt: skip
    try:
        host.start(plan)
    except Exception as error:
        assert "workdir" in str(error) or "could not be started" in str(error)
        return
    result = host.finish(plan)
    assert Path("/etc/hostname").read_text().strip() not in result.out.splitlines()
    assert "boot" not in result.out.split()


def test_other_attempts_are_not_to_be_seen(host: Host):
    other = host.plan("sh", "-c", "echo secret > /mine; echo secret > $TOW_OUT/mine; echo ready; sleep 98765")
    host.start(other)
    assert host.read_line(other) == "ready"
    script = f"""
    find / -xdev -name mine 2>/dev/null
    cat {other.out}/mine {other.directory}/upper/mine 2>/dev/null
    ls {host.node_dir} /run/towline-roots 2>/dev/null
    cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 9876[5]'
    """
    assert host.run("sh", "-c", script).out.split() == ["0"]
    host.signal(other, 9)
    host.finish(other)


@pytest.fixture
def altered(host: Host, image: Image, tmp_path: Path) -> Iterator[Path]:
    """The root of an image of the test's own."""
    rootfs = Path(shutil.copytree(image.rootfs, tmp_path / "image", symlinks=True))
    host.image = image._replace(rootfs=rootfs)
    yield rootfs


@pytest.mark.parametrize("link", ["/", "/etc", "../../../../../../../..", "/proc/self/root", "/proc/1/root"])
def test_a_symlink_in_an_image_leads_no_mount_outside(host: Host, altered: Path, tmp_path: Path, link: str):
    (altered / "data").symlink_to(link)
    (tmp_path / "given").mkdir()
    (tmp_path / "given/file").write_text("content")
    mounts = (Mount(source=str(tmp_path / "given"), target="/data/towline-test", readonly=True),)
    try:
        result = host.run("cat", "/data/towline-test/file", task=TaskSpec(mounts=mounts))
        assert result.out in ("content", "")
    except Exception as error:
        assert "Nothing can be shown at" in str(error)
    assert not Path("/towline-test").exists()
    assert not Path("/etc/towline-test").exists()


def test_a_folder_swapped_for_a_symlink_is_not_followed(host: Host, tmp_path: Path):
    """Also in the middle of the path, and for inputs."""
    (tmp_path / "a/b").mkdir(parents=True)
    plan = host.plan("ls", "/in", inputs=((str(tmp_path / "a/b"), "/in"),))
    (tmp_path / "a").rename(tmp_path / "aside")
    (tmp_path / "a").symlink_to("/")
    with pytest.raises(Exception, match="cannot be mounted any more"):
        host.start(plan)


def test_the_files_of_others_are_not_to_be_read_through_a_mount(host: Host, tmp_path: Path):
    """In a user namespace even root inside is only the submitting user outside."""
    (tmp_path / "data").mkdir(mode=0o755)
    for owner, name in ((0, "ours"), (4321, "theirs")):
        file = tmp_path / "data" / name
        file.write_text(name)
        file.chmod(0o600)
        os.chown(file, owner, owner)
    mounts = (Mount(source=str(tmp_path / "data"), target="/data"),)
    script = "cat /data/ours; cat /data/theirs; echo new > /data/new; stat -c %u /data/ours /data/theirs"
    result = host.run("sh", "-c", script, task=TaskSpec(mounts=mounts, user="1000"))
    if host.isolation.ids is None:  # then its uid is the machine's
        assert result.out.split() == ["0", "4321"]
        return
    assert result.out.split() == ["ours1000", "65534"]
    assert "can't open '/data/theirs': Permission denied" in result.err
    assert (tmp_path / "data/new").stat().st_uid == 0


def test_its_users_are_nobody_outside(host: Host):
    plan = host.plan("sleep", "100", task=TaskSpec(user="1000"))
    pid = host.start(plan)
    status = Path(f"/proc/{pid}/status").read_text()
    uid = int(status.partition("Uid:\t")[2].split()[0])
    ids = host.isolation.ids
    assert uid == (1000 if ids is None else ids.first + 1000)
    host.signal(plan, 9)
    host.finish(plan)


def test_a_fork_bomb_ends_with_its_container(host: Host):
    plan = host.plan("sh", "-c", "(f() { f | f & }; f) & echo ready; while :; do :; done", pids=32)
    host.start(plan)
    assert host.read_line(plan) == "ready"
    host.signal(plan, 9)
    assert host.finish(plan).status == -9


def test_privileged_is_everything(host: Host):
    """Where the policy allows it: this host's does."""
    script = (
        "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; mount -t tmpfs none /tmp && echo mounted"
    )
    lines = host.run("sh", "-c", script, task=TaskSpec(privileged=True)).out.split()
    fields = dict(zip(lines[:6:2], lines[1:6:2], strict=True))
    assert int(fields["CapEff:"], 16) & 1 << 21
    assert (fields["NoNewPrivs:"], fields["Seccomp:"], lines[-1]) == ("0", "0", "mounted")


def test_the_network_of_the_machine_shows_its_devices_and_no_more(host: Host):
    script = "ls /sys/class/net; (echo x > /sys/kernel/x) 2>&1; ls /sys/fs/cgroup"
    result = host.run("sh", "-c", script, task=TaskSpec(network="host"))
    assert set(os.listdir("/sys/class/net")) <= set(result.out.split())  # noqa: PTH208
    assert "memory" in result.out
    assert "/sys/kernel/x" in result.out, "it was refused"
