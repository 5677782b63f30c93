"""A home whose disk is full: the server says so, loses nothing, and goes on when there is space again."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.integration.server_process import PATIENCE_S, ServerProcess, job

DISK_MIB = 12


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, which takes the rights to mount."""
    path = tmp_path / "disk"
    path.mkdir()
    options = f"mode=0700,size={DISK_MIB}m,nr_inodes=400"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["mount", "-o", "remount,rw", str(path)], check=True)
    for content in path.iterdir():  # a keeper that found no space to work ends when its folder has gone
        shutil.rmtree(content) if content.is_dir() else content.unlink()
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
async def server(disk: Path) -> AsyncIterator[ServerProcess]:
    made = ServerProcess(disk, TOWLINE_BACKOFF_MAX_MS="100")
    await made.start()
    yield made
    await made.close()


def fill(disk: Path) -> Path:
    """Leave not a single byte; returns what to remove again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return ballast


async def test_submissions_are_refused_with_the_cause_and_taken_again_later(
    server: ServerProcess, disk: Path
) -> None:
    ballast = fill(disk)
    large = job("large", **{f"t{n}": {"env": {"X": "x" * 10_000}} for n in range(100)})
    for _ in range(3):
        refused = await server.submit(large, "key")
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert "disk is full" in refused.json()["detail"]
    ballast.unlink()
    async with asyncio.timeout(PATIENCE_S):
        while (answer := await server.submit(large, "key")).status_code == 503:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert answer.status_code in (200, 201), answer.text


def test_logging_to_a_full_disk_raises_nothing() -> None:
    program = (
        "import logging, structlog; from towline.launch import set_up_logging; set_up_logging();"
        "[structlog.get_logger('x').warning('stepping down', reason='full') for _ in range(1000)];"
        "logging.getLogger('y').error('z'); print('went on')"
    )
    with Path("/dev/full").open("wb", buffering=0) as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stderr=full, stdout=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_server_that_finds_no_space_ends_with_a_sentence(disk: Path) -> None:
    (disk / "server.lock").write_text("of an earlier server")
    fill(disk)
    for number in range(400):  # nor an inode
        try:
            (disk / str(number)).touch()
        except OSError:
            break
    argv = [sys.executable, "-m", "towline.launch", "server", "--home", os.fspath(disk)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "tow server: [Errno 28] No space left on device"


def tow(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "TOWLINE_HOME": os.fspath(home)}
    program = [Path(sys.executable).with_name("tow"), *arguments]
    return subprocess.run(program, env=environ, capture_output=True, text=True, timeout=60, check=False)


def remount_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


@pytest.mark.parametrize("free_bytes", [0, 8192])
def test_a_server_that_cannot_start_for_lack_of_space_is_told_with_the_cause(
    disk: Path, free_bytes: int
) -> None:
    fill(disk)
    os.truncate(disk / "ballast", (disk / "ballast").stat().st_size - free_bytes)
    done = tow(disk, "jobs")
    assert done.returncode == 3, done
    assert f"no space left in TOWLINE_HOME {disk}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_read_only_home_is_refused_in_a_sentence(disk: Path, mode: int) -> None:
    disk.chmod(mode)
    (disk / "start.lock").touch()
    remount_read_only(disk)
    done = tow(disk, "jobs")
    assert done.returncode == 2, done
    assert done.stderr.startswith(f"error: TOWLINE_HOME {disk} cannot be used: Read-only file system.")
    assert len(done.stderr.splitlines()) == 1
