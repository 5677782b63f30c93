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
from tests.small_disk import SmallDisk

DISK_MIB = 12


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path / "disk", f"{DISK_MIB}m", "nr_inodes=400") as disk:
        yield disk
        disk.writable()
        for content in disk.folder.iterdir():  # a keeper that found no space ends when its folder has gone
            shutil.rmtree(content) if content.is_dir() else content.unlink()


@pytest.fixture
async def server(disk: SmallDisk) -> AsyncIterator[ServerProcess]:
    made = ServerProcess(disk.folder, TOWLINE_BACKOFF_MAX_MS="100")
    await made.start()
    yield made
    await made.close()


async def test_submissions_are_refused_with_the_cause_and_taken_again_later(
    server: ServerProcess, disk: SmallDisk
) -> None:
    disk.fill()
    large = job("large", **{f"t{n}": {"env": {"X": "x" * 10_000}} for n in range(100)})
    for _ in range(3):
        refused = await server.submit(large, "key")
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert "disk is full" in refused.json()["detail"]
    disk.free()
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


def test_a_server_that_finds_no_space_ends_with_a_sentence(disk: SmallDisk) -> None:
    home = disk.folder
    (home / "server.lock").write_text("of an earlier server")
    disk.fill()
    for number in range(400):  # nor an inode
        try:
            (home / str(number)).touch()
        except OSError:
            break
    argv = [sys.executable, "-m", "towline.launch", "server", "--home", os.fspath(home)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "tow server: [Errno 28] No space left on device"


def tow(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "TOWLINE_HOME": os.fspath(home)}
    program = [Path(sys.executable).with_name("tow"), *arguments]
    return subprocess.run(program, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("free_bytes", [0, 8192])
def test_a_server_that_cannot_start_for_lack_of_space_is_told_with_the_cause(
    disk: SmallDisk, free_bytes: int
) -> None:
    disk.fill(but_bytes=free_bytes)
    done = tow(disk.folder, "jobs")
    assert done.returncode == 3, done
    assert f"no space left in TOWLINE_HOME {disk.folder}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_read_only_home_is_refused_in_a_sentence(disk: SmallDisk, mode: int) -> None:
    home = disk.folder
    home.chmod(mode)
    (home / "start.lock").touch()
    disk.read_only()
    done = tow(home, "jobs")
    assert done.returncode == 2, done
    assert done.stderr.startswith(f"error: TOWLINE_HOME {home} cannot be used: Read-only file system.")
    assert len(done.stderr.splitlines()) == 1
