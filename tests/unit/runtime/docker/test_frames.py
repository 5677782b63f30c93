"""The Engine's framed output, cut anywhere."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.runtime.docker.frames import Frames

CHUNKS = st.lists(st.tuples(st.sampled_from([0, 1]), st.binary(max_size=40)))


@given(chunks=CHUNKS, cuts=st.lists(st.integers(1, 11), min_size=1))
def test_cut_anywhere_it_is_the_same(chunks: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(struct.pack(">BxxxL", stream + 1, len(text)) + text for stream, text in chunks)
    frames = Frames()
    got = [b"", b""]
    at = turn = 0
    while at < len(data):
        end = at + cuts[turn % len(cuts)]
        for stream, text in frames.feed(data[at:end]):
            got[stream] += text
        at, turn = end, turn + 1
    assert frames.whole
    assert got == [b"".join(text for stream, text in chunks if stream == n) for n in (0, 1)]


def test_half_a_frame_is_given_and_is_not_whole() -> None:
    frames = Frames()
    assert list(frames.feed(b"\1\0\0\0\0\0\0\4ab")) == [(0, b"ab")]
    assert not frames.whole


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="stream 72"):
        list(Frames().feed(b"HTTP/1.1 404"))
