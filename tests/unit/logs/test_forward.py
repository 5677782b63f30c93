"""A backlog read forward has the bytes and the times that the reader finds from the end."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from towline.logs import Writer, read
from towline.logs.forward import Forward


@pytest.mark.parametrize("seed", range(10))
def test_pieces_have_the_times_of_their_bytes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    writer = Writer(str(tmp_path), 2**20)
    files = [Forward(str(tmp_path), stream) for stream in (0, 1)]
    offsets, now = [0, 0], 1_000
    for _ in range(400):
        now += chance.choice([0, 1, 30])
        writer.write(chance.randrange(2), b"x" * chance.randrange(1, 400), now)
        stream = chance.randrange(2)
        if chance.random() < 0.3:
            offset = offsets[stream]
            data, times = files[stream].read(offset, chance.randrange(1, 3_000), 1_000)
            expected = read(str(tmp_path), ("stdout", "stderr")[stream], offset, len(data) or 1)
            assert data == expected.data
            assert tuple((at, ms) for at, ms, _ in times) == expected.index
            offsets[stream] += len(data)
    writer.close()


def test_a_piece_is_cut_where_it_has_too_many_times(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), 2**20)
    for at in range(10):
        writer.write(0, b"12345", 1_000 + 100 * at)
    file = Forward(str(tmp_path), 0)
    assert file.read(0, 100, 3) == (b"12345" * 3, ((0, 1_000, 0), (5, 1_100, 0), (10, 1_200, 0)))
    assert file.read(15, 100, 3).times[0] == (15, 1_300, 0)


def test_notes_of_what_was_dropped_are_marked(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path), 5)
    writer.write(0, b"123456789", 1_000)
    writer.finish(2_000)
    data, times = Forward(str(tmp_path), 0).read(0, 1_000, 10)
    assert data.startswith(b"12345\n[towline: 4 bytes of stdout were dropped here")
    assert times == ((0, 1_000, 0), (5, 2_000, 1))


def test_what_was_never_written_is_empty(tmp_path: Path) -> None:
    assert Forward(str(tmp_path / "none"), 0).read(0, 10, 10) == (b"", ())
