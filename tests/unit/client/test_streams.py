"""Streams whose chunks break anywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.client.streams import LogChunk, Message, Resumed, lines, messages
from towline.errors import OperatorError


async def chunks_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def cut(text: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(text) + 1) for place in places})
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


@given(
    found=st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"\n", b"").replace(b"\r", b""))),
    end=st.sampled_from([b"\n", b"\r\n"]),
    places=st.lists(st.integers(0, 500), max_size=8),
)
async def test_lines_do_not_depend_on_chunks(found: list[bytes], end: bytes, places: list[int]) -> None:
    text = b"".join(line + end for line in found)
    assert [line async for line in lines(chunks_of(*cut(text, places)))] == found


async def test_line_that_was_cut_off_is_dropped() -> None:
    assert [line async for line in lines(chunks_of(b"whole\ncut"))] == [b"whole"]


async def test_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.client.streams.MAX_MESSAGE_BYTES", 10)
    with pytest.raises(OperatorError, match="over 10 bytes"):
        _ = [line async for line in lines(chunks_of(b"12345", b"67890", b"1"))]


@given(places=st.lists(st.integers(0, 500), max_size=8))
async def test_messages_have_cursors_and_joined_data(places: list[int]) -> None:
    text = (
        b": hello\n\nid: 1\ndata: [1]\n\nid: 2\r\ndata:[2,\r\ndata: 3]\r\n\r\nid: 3\n\ndata: [4]\n\ndata: cut"
    )
    found = [message async for message in messages(chunks_of(*cut(text, places)))]
    assert found == [Message("1", b"[1]"), Message("2", b"[2,\n3]"), Message("3", b"[4]")]


def chunk(offset: int, data: bytes, stream: str = "stdout") -> LogChunk:
    return LogChunk(stream=stream, offset=offset, data=data)


@given(first=st.integers(0, 20), sizes=st.lists(st.integers(1, 7), min_size=1))
def test_reading_again_gives_each_byte_once(first: int, sizes: list[int]) -> None:
    text = bytes(range(65, 65 + 20))
    resumed = Resumed()
    got = b""
    again, at = [chunk(0, text[:first])] if first else [], 0
    for size in sizes:
        again.append(chunk(at, text[at : at + size]))
        at = min(at + size, len(text))
    for piece in again:
        fresh = resumed.fresh(piece)
        got += fresh.data if fresh is not None else b""
    assert got == text[: max(first, at)]


def test_streams_are_resumed_each_on_its_own() -> None:
    resumed = Resumed()
    assert not resumed.started
    assert resumed.fresh(chunk(0, b"abc")) == chunk(0, b"abc")
    assert resumed.fresh(chunk(0, b"xy", "stderr")) == chunk(0, b"xy", "stderr")
    assert resumed.fresh(chunk(1, b"bcd")) == chunk(3, b"d")
    assert resumed.fresh(chunk(0, b"abcd")) is None
    assert resumed.started
