"""What the kernel tells of processes, asked of real ones."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys

import pytest
from tests.conformance.runtimes.node import eventually

from towline.agent.supervision import kernel


@pytest.fixture(autouse=True)
def no_other_children() -> None:
    """Other tests of this process may have left children that have ended: they would be told of first."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def spawn(script: str) -> int:
    return os.posix_spawn("/bin/sh", ["sh", "-c", script], {"TOW_JOB": "k"}, setsid=True)


def ended(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 77", 77), ("kill -SEGV $$", -11)])
def test_exit_is_told_before_the_reaping(script: str, code: int) -> None:
    pid = spawn(script)
    ended(pid)
    found = kernel.next_exit()
    assert found is not None
    assert (found.pid, os.waitstatus_to_exitcode(found.status)) == (pid, code)
    assert found.cpu_ms is not None
    assert kernel.has_exited(pid)
    again = kernel.next_exit()
    assert again is not None
    assert again.pid == pid
    kernel.reap(pid)
    assert kernel.next_exit() is None


def test_usage_counts_children() -> None:
    pid = spawn("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done")
    assert not kernel.has_exited(pid)
    ended(pid)
    found = kernel.next_exit()
    kernel.reap(pid)
    assert found is not None
    assert found.cpu_ms is not None
    assert found.cpu_ms > 10


def test_a_process_and_its_start() -> None:
    before_ms = kernel.boottime_ms()
    pid = spawn("read x < /dev/zero")
    after_ms = kernel.boottime_ms()
    try:
        process = kernel.process(pid)
        assert process is not None
        assert (process.parent, process.session) == (os.getpid(), pid)
        assert before_ms - 10 <= process.start_ms <= after_ms + 10
        # for a moment of its exec, a process has no environment yet
        eventually(lambda: kernel.environment(pid).get("TOW_JOB") == "k", "it has no TOW_JOB")
        assert pid in kernel.children()
        assert pid in kernel.processes()
    finally:
        os.kill(pid, signal.SIGKILL)
        kernel.reap(pid)
    assert kernel.process(pid) is None
    assert kernel.environment(pid) == {}


@pytest.mark.parametrize(("script", "code"), [("exit 9", 9), ("kill -TERM $$", -15)])
def test_the_record_behind_a_pidfd(script: str, code: int) -> None:
    """Where the kernel keeps it (Linux 6.15), it is exact, and only there after the reaping."""
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    pid = spawn(script)
    pidfd = os.pidfd_open(pid)
    ended(pid)
    assert kernel.exit_record(pidfd) is None
    kernel.reap(pid)
    status = kernel.exit_record(pidfd)
    os.close(pidfd)
    if release >= (6, 15):
        assert status is not None
        assert os.waitstatus_to_exitcode(status) == code
    else:
        assert status is None


def test_a_record_of_nothing() -> None:
    reader, writer = os.pipe()
    assert kernel.exit_record(reader) is None
    os.close(reader)
    os.close(writer)


SHARED = """
import ctypes, os
from towline.agent.supervision import kernel
libc = ctypes.CDLL(None)
assert libc.unshare(0x20000) == 0
assert libc.mount(b"none", b"/", None, 0x4000 | (1 << 20), None) == 0   # the outer root: shared
outer = os.fork()
if outer == 0:
    mount = kernel.hybrid_mount()
    kernel.enter_mounts_without(mount)
    assert kernel.hybrid_mount() is None
    os._exit(0)
assert os.waitpid(outer, 0)[1] == 0
print(kernel.hybrid_mount())
"""


@pytest.mark.skipif(
    kernel.hybrid_mount() is None or os.geteuid() != 0,
    reason="only for root where cgroups v1 and v2 are both there",
)
def test_hides_hybrid_cgroups_from_itself_alone() -> None:
    """Under a shared root: the mount is gone inside, and is where it was outside."""
    mount = kernel.hybrid_mount()
    result = subprocess.run([sys.executable, "-c", SHARED], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == mount
    assert kernel.hybrid_mount() == mount


ORPHANED = """
import os, signal
from towline.agent.supervision import kernel
kernel.become_subreaper()
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "/bin/sleep 600 & echo $!"], {}, setsid=True)
os.waitpid(pid, 0)
found = kernel.children()
for pid in found:
    os.kill(pid, signal.SIGKILL)
    kernel.reap(pid)
print(*found)
"""


def test_orphans_come_to_a_subreaper() -> None:
    result = subprocess.run([sys.executable, "-c", ORPHANED], stdout=subprocess.PIPE, text=True, check=True)
    orphan, found = result.stdout.split()
    assert orphan == found


def test_waits_for_a_pidfd() -> None:
    pid = spawn("exit 0")
    pidfd = os.pidfd_open(pid)
    assert select.select([pidfd], [], [], 30)[0] == [pidfd]
    kernel.reap(pid)
    os.close(pidfd)


def test_a_child_tells_after_its_end_whether_it_became_another_program():
    fork = os.fork()
    if fork == 0:
        os._exit(1)
    program = os.posix_spawn("/bin/false", ["false"], {})
    for pid, executed in ((fork, False), (program, True)):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert kernel.has_executed(pid) is executed
        os.waitpid(pid, 0)
        assert kernel.has_executed(pid)
