"""Two streams merged by time, and tails."""

from __future__ import annotations

import pytest

from towline.server.output import Merger, OutputError, Piece, follow, last_lines, pieces_of
from towline.wire.messages import LogChunk


class Files:
    """A node's files: stream name to (bytes, index of (offset, ms)); ``complete`` once ended."""

    def __init__(self, **streams: tuple[bytes, tuple[tuple[int, int], ...]]) -> None:
        self.streams = {"stdout": (b"", ()), "stderr": (b"", ()), **streams}
        self.complete = True
        self.chunk_bytes = 1 << 20
        self.error: str | None = None

    async def read(self, stream: str, offset: int, limit: int) -> LogChunk:
        data, index = self.streams[stream]
        begin = max(0, len(data) + offset) if offset < 0 else offset
        end = min(len(data), begin + min(limit, self.chunk_bytes))
        within = tuple((at, ms) for at, ms in index if begin <= at < end)
        is_end = self.complete and end == len(data)
        return LogChunk(
            request=1, offset=begin, data=data[begin:end], index=within, end=is_end, error=self.error
        )


async def everything(files: Files, tail: int | None = None) -> list[Piece]:
    merger = Merger(["stdout", "stderr"], files.read)
    first = await merger.start(tail)
    return [piece async for pieces in follow(merger, first, forever=False) for piece in pieces]


async def test_streams_are_merged_by_time() -> None:
    files = Files(stdout=(b"one\nthree\n", ((0, 10), (4, 30))), stderr=(b"two\nfour\n", ((0, 20), (4, 40))))
    found = await everything(files)
    assert [(piece.stream, piece.at, piece.data) for piece in found] == [
        ("stdout", 10, b"one\n"),
        ("stderr", 20, b"two\n"),
        ("stdout", 30, b"three\n"),
        ("stderr", 40, b"four\n"),
    ]


async def test_small_chunks_give_the_same_bytes_and_offsets() -> None:
    data = bytes(range(256)) * 8
    files = Files(stdout=(data, tuple((at, at) for at in range(0, 2048, 100))))
    files.chunk_bytes = 37
    found = await everything(files)
    assert b"".join(piece.data for piece in found) == data
    at = 0
    for piece in found:
        assert piece.offset == at
        at += len(piece.data)
        assert piece.at == piece.offset // 100 * 100


async def test_what_is_written_while_it_is_followed_comes_too() -> None:
    files = Files(stdout=(b"one\n", ((0, 1),)))
    files.complete = False
    merger = Merger(["stdout", "stderr"], files.read)
    followed = follow(merger, await merger.start(None), forever=True)
    assert [piece.data for piece in await anext(followed)] == [b"one\n"]
    files.streams["stdout"] = (b"one\ntwo\n", ((0, 1), (4, 2)))
    assert [(piece.offset, piece.data) for piece in await anext(followed)] == [(4, b"two\n")]
    files.complete = True
    with pytest.raises(StopAsyncIteration):
        await anext(followed)


@pytest.mark.parametrize(
    ("lines", "expected"), [(0, b""), (1, b"d"), (2, b"c\nd"), (3, b"b\nc\nd"), (9, b"a\nb\nc\nd")]
)
async def test_a_tail_is_of_both_streams_together(lines: int, expected: bytes) -> None:
    files = Files(stdout=(b"a\nc\n", ((0, 1), (2, 3))), stderr=(b"b\nd", ((0, 2), (2, 4))))
    found = await everything(files, tail=lines)
    assert b"".join(piece.data for piece in found) == expected


async def test_a_tail_of_a_long_stream_reads_its_end_only() -> None:
    lines = b"".join(b"%06d\n" % number for number in range(200_000))
    files = Files(stdout=(lines, ((0, 1),)))
    found = await everything(files, tail=20_000)
    assert b"".join(piece.data for piece in found) == lines[-7 * 20_000 :]


async def test_a_tail_is_whole_where_the_node_gives_less_at_once() -> None:
    lines = b"".join(b"%06d\n" % number for number in range(20_000))
    files = Files(stdout=(lines + b"y" * 300_000 + b"\nlast", ((0, 1),)))
    files.chunk_bytes = 50_000
    found = await everything(files, tail=3)
    assert b"".join(piece.data for piece in found) == b"019999\n" + b"y" * 300_000 + b"\nlast"


async def test_what_the_node_cannot_read_is_an_error() -> None:
    files = Files()
    files.error = "no such attempt"
    with pytest.raises(OutputError, match="no such attempt"):
        await everything(files)


def test_bytes_before_the_first_mark_have_the_time_of_those_before() -> None:
    chunk = LogChunk(request=1, offset=100, data=b"abcdef", index=((103, 7),), end=False)
    assert pieces_of("stdout", chunk, 5) == [
        Piece("stdout", 5, 100, b"abc"),
        Piece("stdout", 7, 103, b"def"),
    ]


def test_a_last_line_without_an_end_counts_as_one() -> None:
    pieces = [Piece("stdout", 1, 0, b"a\nb"), Piece("stdout", 2, 3, b"b\nc")]
    assert b"".join(piece.data for piece in last_lines(pieces, 2)) == b"bb\nc"
