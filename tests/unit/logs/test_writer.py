"""Output through real pipes into real files."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from towline import logs
from towline.logs import entries
from towline.logs.entries import HEAD, INDEX, MAGIC


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue


def test_moves_bytes_as_they_are(tmp_path: Path, pipe: tuple[int, int]) -> None:
    data = bytes(range(256)) * 100
    os.write(pipe[1], data)
    writer = logs.Writer(str(tmp_path), 1 << 20)
    assert writer.move(0, pipe[0], 1 << 20, 1000) == len(data)
    assert writer.move(0, pipe[0], 1 << 20, 1000) == -1
    os.close(pipe[1])
    assert writer.move(0, pipe[0], 1 << 20, 1000) == 0
    writer.finish(1000)
    assert logs.read(str(tmp_path), "stdout", 0, 1 << 20) == (data, ((0, 1000),), True)
    assert not (tmp_path / "stderr").exists()


def test_makes_no_files_for_silence(tmp_path: Path) -> None:
    writer = logs.Writer(str(tmp_path / "a"), 100)
    writer.finish(5)
    assert list(tmp_path.iterdir()) == []
    assert logs.read(str(tmp_path / "a"), "stdout", 0, 10) == (b"", (), True)
    assert logs.dropped(str(tmp_path / "a")) == (0, 0)
    assert logs.tail(str(tmp_path / "a"), "stdout", 10) == 0


def test_index_tells_when_bytes_came(tmp_path: Path, pipe: tuple[int, int]) -> None:
    writer = logs.Writer(str(tmp_path), 1 << 20)
    for stream, text, at in (
        (0, b"one\n", 1000),
        (1, b"err\n", 1005),
        (0, b"two\n", 1010),
        (0, b"six\n", 9000),
    ):
        os.write(pipe[1], text)
        writer.move(stream, pipe[0], 100, at)
    writer.finish(9000)
    assert logs.read(str(tmp_path), "stdout", 0, 100).index == ((0, 1000), (4, 1010), (8, 9000))
    assert logs.read(str(tmp_path), "stdout", 6, 4).index == ((6, 1010), (8, 9000))
    assert logs.read(str(tmp_path), "stderr", 0, 100).index == ((0, 1005),)
    assert logs.read(str(tmp_path), "stdout", -4, 100) == (b"six\n", ((8, 9000),), True)


def test_a_look_that_finds_nothing_leaves_no_time(tmp_path: Path, pipe: tuple[int, int]) -> None:
    writer = logs.Writer(str(tmp_path), 1 << 20)
    os.write(pipe[1], b"first\n")
    writer.move(0, pipe[0], 1 << 20, 1000)
    assert writer.move(0, pipe[0], 1 << 20, 2000) == -1
    os.write(pipe[1], b"second\n")
    writer.move(0, pipe[0], 1 << 20, 3000)
    writer.finish(3000)
    assert logs.read(str(tmp_path), "stdout", 0, 100) == (b"first\nsecond\n", ((0, 1000), (6, 3000)), True)


def test_drops_over_the_limit_and_counts(tmp_path: Path, pipe: tuple[int, int]) -> None:
    writer = logs.Writer(str(tmp_path), 10)
    os.write(pipe[1], b"x" * 8)
    writer.move(0, pipe[0], 100, 1)
    os.write(pipe[1], b"y" * 8)
    assert writer.move(1, pipe[0], 100, 2) == 2
    assert writer.move(1, pipe[0], 100, 2) == 6
    os.write(pipe[1], b"z" * 50)
    writer.move(0, pipe[0], 30, 3)
    assert logs.dropped(str(tmp_path)) == (30, 6)
    writer.move(0, pipe[0], 30, 3)
    writer.finish(4)
    assert logs.dropped(str(tmp_path)) == (50, 6)
    out = logs.read(str(tmp_path), "stdout", 0, 1000).data
    assert out == b"x" * 8 + b"\n[towline: 50 bytes of stdout were dropped here: logs.max_bytes is 10]\n"
    assert logs.read(str(tmp_path), "stderr", 0, 1000).data.startswith(b"yy\n[towline: 6 bytes of stderr")
    assert [(m.stream, m.offset) for m in logs.markers(str(tmp_path))] == [(0, 8), (1, 2)]


def test_a_limit_of_nothing_keeps_the_count(tmp_path: Path, pipe: tuple[int, int]) -> None:
    writer = logs.Writer(str(tmp_path), 0)
    os.write(pipe[1], b"abc")
    assert writer.move(0, pipe[0], 100, 1) == 3
    writer.finish(1)
    assert logs.read(str(tmp_path), "stdout", 0, 100).data.startswith(b"\n[towline: 3 bytes")


def test_a_disk_that_is_full_drops_with_the_reason(tmp_path: Path, pipe: tuple[int, int]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = logs.Writer(str(tmp_path), 100_000)
    os.write(pipe[1], b"abc" * 4000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        moved = 0
        while (count := writer.move(0, pipe[0], 100_000, 1)) > 0:
            moved += count
        writer.finish(1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert moved == 12_000
    assert logs.size(str(tmp_path), "stdout") == 8192
    assert logs.dropped(str(tmp_path)) == (12_000 - 8192, 0)


def test_resumes_where_the_files_end(tmp_path: Path, pipe: tuple[int, int]) -> None:
    first = logs.Writer(str(tmp_path), 20)
    os.write(pipe[1], b"before ")
    first.move(0, pipe[0], 100, 1000)
    first.close()
    second = logs.Writer(str(tmp_path), 20, resume=True)
    os.write(pipe[1], b"after and more than fits")
    while second.move(0, pipe[0], 100, 2000) > 0:
        pass
    second.close()
    third = logs.Writer(str(tmp_path), 20, resume=True)
    third.finish(3000)
    logs.Writer(str(tmp_path), 20, resume=True).finish(3001)
    chunk = logs.read(str(tmp_path), "stdout", 0, 1000)
    assert chunk.data.startswith(b"before after and mor\n[towline: 11 bytes")
    assert chunk.data.count(b"towline") == 1
    assert chunk.index[:2] == ((0, 1000), (7, 2000))


def test_rebuilds_an_index_that_is_gone(tmp_path: Path, pipe: tuple[int, int]) -> None:
    first = logs.Writer(str(tmp_path), 100)
    os.write(pipe[1], b"before ")
    first.move(1, pipe[0], 100, 1000)
    first.close()
    (tmp_path / INDEX).unlink()
    os.utime(tmp_path / "stderr", (7, 7))
    assert logs.read(str(tmp_path), "stderr", 0, 100).index == ((0, 7000),)
    logs.Writer(str(tmp_path), 100, resume=True).finish(2000)
    assert logs.read(str(tmp_path), "stderr", 0, 100) == (b"before ", ((0, 7000),), True)


@pytest.mark.parametrize("cut", [1, 10, entries.ENTRY_BYTES - 1])
def test_writes_over_a_torn_index_entry(tmp_path: Path, pipe: tuple[int, int], cut: int) -> None:
    first = logs.Writer(str(tmp_path), 100)
    for at in (1000, 2000):
        os.write(pipe[1], b"line\n")
        first.move(0, pipe[0], 100, at)
    first.close()
    index = tmp_path / INDEX
    os.truncate(index, index.stat().st_size - cut)
    second = logs.Writer(str(tmp_path), 100, resume=True)
    os.write(pipe[1], b"line\n")
    second.move(0, pipe[0], 100, 3000)
    second.finish(3000)
    assert logs.read(str(tmp_path), "stdout", 0, 100).index == ((0, 1000), (10, 3000))


def test_a_flipped_bit_costs_one_entry(tmp_path: Path, pipe: tuple[int, int]) -> None:
    writer = logs.Writer(str(tmp_path), 100)
    for at in (1000, 2000, 3000):
        os.write(pipe[1], b"line\n")
        writer.move(0, pipe[0], 100, at)
    writer.finish(3000)
    data = bytearray((tmp_path / INDEX).read_bytes())
    data[HEAD.size + entries.ENTRY_BYTES + 9] ^= 4
    (tmp_path / INDEX).write_bytes(data)
    assert logs.read(str(tmp_path), "stdout", 0, 100).index == ((0, 1000), (10, 3000))


def test_bytes_are_written_counted_and_taken_back(tmp_path: Path) -> None:
    folder = str(tmp_path / "out")
    writer = logs.Writer(folder, 10)
    writer.write(0, b"abcdef", 1000)
    writer.write(1, b"xy", 2000)
    writer.write(0, b"ghijk", 3000)
    assert writer.dropped == [3, 0]
    writer.rewind(0, 2)
    writer.write(0, b"CDE", 4000)
    writer.finish(5000)
    assert logs.read(folder, "stdout", 0, 100).data == b"abCDE"
    assert logs.read(folder, "stdout", 0, 100).index == ((0, 1000), (2, 4000))
    assert logs.read(folder, "stderr", 0, 100).data == b"xy"
    assert logs.dropped(folder) == (0, 0)


@pytest.mark.containers  # mounts a filesystem: needs the same rights
def test_a_disk_without_room_leaves_all_in_the_pipe(tmp_path: Path, pipe: tuple[int, int]) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "towline-test", tmp_path], check=True)
    try:
        writer = logs.Writer(str(tmp_path), 1 << 20)
        ballast = tmp_path / "ballast"
        os.write(pipe[1], b"abc")
        assert writer.move(0, pipe[0], 100, 1) == 3
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        sent = b"%06d\n" * 8000 % tuple(range(8000))
        os.write(pipe[1], sent)
        moved = 0
        while (count := writer.move(0, pipe[0], 1 << 20, 2)) > 0:
            moved += count
        assert (count, writer.stalled) == (-1, True)
        assert (moved < len(sent), writer.dropped) == (True, [0, 0])
        assert writer.move(0, pipe[0], 1 << 20, 3) == -1
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=1m", tmp_path], check=True)
        while (count := writer.move(0, pipe[0], 1 << 20, 4)) > 0:
            moved += count
        assert (moved, writer.stalled) == (len(sent), False)
        writer.finish(5)
        assert logs.read(str(tmp_path), "stdout", 0, 1 << 20).data == b"abc" + sent
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Files can be made on it, and nothing be put into them until ``ballast`` has gone."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "towline-test", disk], check=True)
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.containers  # mounts a filesystem: needs the same rights
def test_an_index_that_was_begun_on_a_full_disk_has_its_head(full_disk: Path, pipe: tuple[int, int]) -> None:
    folder = full_disk / "a"
    writer = logs.Writer(str(folder), 5)
    os.write(pipe[1], b"abcdefgh")
    for _ in range(3):
        assert (writer.move(0, pipe[0], 100, 1), writer.stalled) == (-1, True)
    (full_disk / "ballast").unlink()
    assert writer.move(0, pipe[0], 100, 2) == 5
    assert (folder / "index").read_bytes().startswith(MAGIC)
    assert writer.move(0, pipe[0], 100, 3) == 3
    writer.finish(4)
    assert logs.dropped(str(folder)) == (3, 0)
    assert logs.read(str(folder), "stdout", 0, 5) == ((b"abcde"), ((0, 2),), False)


@pytest.mark.containers  # mounts a filesystem: needs the same rights
def test_a_count_that_finds_no_room_is_kept_until_it_does(full_disk: Path, pipe: tuple[int, int]) -> None:
    folder = full_disk / "a"
    writer = logs.Writer(str(folder), 0)
    os.write(pipe[1], b"abc")
    assert writer.move(0, pipe[0], 100, 1) == 3
    for _ in range(2):
        writer.finish(2)
        assert (writer.stalled, logs.dropped(str(folder))) == (True, (0, 0))
    (full_disk / "ballast").unlink()
    writer.finish(3)
    assert (writer.stalled, logs.dropped(str(folder))) == (False, (3, 0))
    assert logs.read(str(folder), "stdout", 0, 100).data.count(b"3 bytes of stdout were dropped") == 1


@pytest.mark.containers  # mounts a filesystem: needs the same rights
def test_files_of_another_supervisor_are_taken_up_on_a_full_disk(
    full_disk: Path, pipe: tuple[int, int]
) -> None:
    """Their index is gone, and there is no room to begin another one."""
    folder = full_disk / "a"
    folder.mkdir()
    (full_disk / "ballast").unlink()
    (folder / "stdout").write_bytes(b"before\n")
    with (full_disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    writer = logs.Writer(str(folder), 1 << 20, resume=True)
    os.write(pipe[1], b"after\n")
    assert (writer.move(0, pipe[0], 100, 1), writer.stalled) == (-1, True)
    (full_disk / "ballast").unlink()
    assert writer.move(0, pipe[0], 100, 2) == 6
    writer.finish(3)
    assert logs.read(str(folder), "stdout", 0, 100).data == b"before\nafter\n"
