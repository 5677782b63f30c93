"""Reading offsets, tails and times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from towline import logs
from towline.logs import entries
from towline.logs.entries import DATA, HEAD, INDEX, MAGIC, Entry


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 1, b"c"),
        (b"a\nb\nc\n", 9, b"a\nb\nc\n"),
        (b"a\n\n\n", 2, b"\n\n"),
        (b"a\n", 0, b""),
    ],
)
def test_tail(tmp_path: Path, text: bytes, lines: int, expected: bytes) -> None:
    (tmp_path / "stdout").write_bytes(text)
    start = logs.tail(str(tmp_path), "stdout", lines)
    assert logs.read(str(tmp_path), "stdout", start, 100).data == expected


def test_tail_over_many_blocks(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_bytes(b"".join(b"%d\n" % n for n in range(50_000)))
    start = logs.tail(str(tmp_path), "stdout", 30_000)
    assert logs.read(str(tmp_path), "stdout", start, 12).data == b"20000\n20001\n"


def test_reads_in_pieces(tmp_path: Path) -> None:
    data = os.urandom(10_000)
    (tmp_path / "stderr").write_bytes(data)
    got, offset, end = b"", 0, False
    while not end:
        piece, index, end = logs.read(str(tmp_path), "stderr", offset, 777)
        assert index[0][0] == offset
        got += piece
        offset += len(piece)
    assert got == data
    assert logs.read(str(tmp_path), "stderr", 20_000, 10) == (b"", (), True)
    assert logs.read(str(tmp_path), "stderr", -20_000, 10).data == data[:10]


def test_finds_times_in_a_long_index(tmp_path: Path) -> None:
    """Entries of both streams, more than a block of them: any offset gets its own time."""
    count = 20_000
    with (tmp_path / INDEX).open("wb") as file:
        file.write(HEAD.pack(MAGIC, 0, 0))
        for n in range(count):
            file.write(entries.pack(Entry(n % 2, DATA, n // 2, 5000 + n)))
    (tmp_path / "stdout").write_bytes(bytes(count // 2))
    for offset in (0, 1, 777, count // 2 - 1):
        assert logs.read(str(tmp_path), "stdout", offset, 2).index[0] == (offset, 5000 + 2 * offset)


def test_refuses_another_stream(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stdout or stderr"):
        logs.read(str(tmp_path), "../secret", 0, 1)
