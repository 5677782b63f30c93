"""The file lock: one holder, freed by the kernel, written down for people."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from towline.coordination.filelock import FileLease
from towline.errors import OperatorError

HOLDER = (
    "import sys\n"
    "from towline.coordination.filelock import FileLease\n"
    "lease = FileLease(sys.argv[1])\n"
    "print(lease.try_acquire(), lease.id, flush=True)\n"
    "sys.stdin.readline()\n"
)


class OtherProcess:
    """Takes the lease and keeps it until it is killed."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", HOLDER, str(path)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        held, self.id = self.process.stdout.readline().split()
        self.held = held == "True"

    def __enter__(self) -> OtherProcess:
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_: object) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.lock"


def test_of_two_one_holds_it(path: Path) -> None:
    first, second = FileLease(path), FileLease(path)
    assert first.try_acquire() and first.held
    assert first.try_acquire()  # again: it is ours still
    assert not second.try_acquire() and not second.held
    first.release()
    assert not first.held
    assert second.try_acquire()
    second.release()
    second.release()


def test_it_is_open_to_its_owner_alone(path: Path) -> None:
    lease = FileLease(path)
    assert lease.try_acquire()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lease.release()


def test_the_kernel_frees_it_at_a_death(path: Path) -> None:
    lease = FileLease(path)
    with OtherProcess(path) as other:
        assert other.held
        assert not lease.try_acquire()
        other.kill()
        assert lease.try_acquire()
    lease.release()


async def test_a_waiter_gets_it_when_the_holder_dies(path: Path) -> None:
    lease = FileLease(path)
    with OtherProcess(path) as other:
        waiting = asyncio.ensure_future(lease.acquire())
        await asyncio.sleep(0)  # until it has asked once
        assert not lease.held
        other.kill()
        await asyncio.wait_for(waiting, 30)
    assert lease.held
    lease.release()


async def test_a_waiter_may_give_up(path: Path) -> None:
    holder, lease = FileLease(path), FileLease(path)
    assert holder.try_acquire()
    waiting = asyncio.ensure_future(lease.acquire())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not lease.held
    holder.release()


def test_a_child_does_not_keep_it(path: Path) -> None:
    first, second = FileLease(path), FileLease(path)
    assert first.try_acquire()
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    first.release()
    assert second.try_acquire()
    second.release()
    assert child.stdin is not None
    child.stdin.close()
    child.wait()


def test_a_file_that_was_replaced_is_not_the_lock(path: Path) -> None:
    first, second = FileLease(path), FileLease(path)
    assert first.try_acquire()
    path.unlink()
    assert second.try_acquire()  # whoever removes a lock file takes it apart: the term still fences
    assert path.exists()
    first.release()
    second.release()


def test_the_holder_is_written_down(path: Path) -> None:
    lease = FileLease(path)
    assert lease.holder() is None
    with OtherProcess(path) as other:
        found = lease.holder()
        assert found is not None
        assert (found.id, found.pid, found.alive) == (other.id, other.process.pid, True)
        other.kill()
        found = lease.holder()
        assert found is not None and found.alive is False
    assert lease.try_acquire()
    found = FileLease(path).holder()
    assert found is not None and (found.id, found.pid) == (lease.id, os.getpid())
    lease.release()
    assert lease.holder() is None


def test_a_note_that_cannot_be_read_names_nobody(path: Path) -> None:
    path.write_bytes(b'{"id": 7')
    assert FileLease(path).holder() is None
    lease = FileLease(path)
    assert lease.try_acquire()
    assert lease.holder() is not None
    lease.release()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    lease = FileLease(tmp_path / "nowhere" / "lock")
    with pytest.raises(OperatorError, match="nowhere/lock: the lock file cannot be used: No such file"):
        lease.try_acquire()
