"""Lines of output on their way to a file, a pipe or a terminal."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.cli.arguments import since_ms
from towline.cli.logs import MAX_HELD_BYTES, Lines, _entry
from towline.client import LogChunk
from towline.errors import RequestError


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


def chunk(data: bytes, stream: str = "stdout", at: int | None = None) -> LogChunk:
    return LogChunk(stream=stream, at=at, offset=0, data=data)


def written(out: io.BytesIO, *chunks: LogChunk, prefix: str = "", timestamps: bool = False) -> bytes:
    lines = Lines(out, prefix, timestamps=timestamps, raw=False)
    for piece in chunks:
        lines.take(piece)
    lines.end()
    return out.getvalue()


@given(st.lists(st.binary()))
def test_bytes_go_unchanged_into_a_pipe(parts: list[bytes]) -> None:
    assert written(io.BytesIO(), *map(chunk, parts)) == b"".join(parts)


def test_lines_of_two_streams_do_not_run_into_each_other() -> None:
    parts = [chunk(b"out "), chunk(b"err\n", "stderr"), chunk(b"put\n"), chunk(b"last", "stderr")]
    assert written(io.BytesIO(), *parts, prefix="a.1 | ") == b"a.1 | err\na.1 | out put\na.1 | last\n"


def test_a_line_has_the_time_of_its_beginning() -> None:
    parts = [chunk(b"a", at=0), chunk(b"b\nc\n", at=61_001), chunk(b"d\n")]
    assert written(io.BytesIO(), *parts, timestamps=True).splitlines() == [
        b"1970-01-01T00:00:00.000Z ab",
        b"1970-01-01T00:01:01.001Z c",
        b"- d",
    ]


def test_a_terminal_gets_no_control_sequences_even_if_chunks_cut_them() -> None:
    parts = [chunk(b"\x1b[3"), chunk(b"1mred\x1b[0m\r\n10%\r"), chunk(b"20%\r\n\xff\n")]
    assert written(Terminal(), *parts).decode() == "red\n10%\n20%\n\N{REPLACEMENT CHARACTER}\n"


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    out = Terminal()
    lines = Lines(out, "", timestamps=False, raw=False)
    lines.take(chunk(b"x" * (MAX_HELD_BYTES + 1)))
    assert len(out.getvalue()) == MAX_HELD_BYTES + 2


def test_raw_bytes_reach_a_terminal_when_asked_for() -> None:
    out = Terminal()
    Lines(out, "", timestamps=False, raw=True).take(chunk(b"\x1b[31m"))
    assert out.getvalue() == b"\x1b[31m"


def test_json_entries_are_text_or_base64() -> None:
    assert _entry(chunk(b"hi", at=1)) == {
        "stream": "stdout",
        "at": "1970-01-01T00:00:00.001Z",
        "offset": 0,
        "text": "hi",
        "base64": None,
    }
    binary = _entry(chunk(b"\xff"))
    assert (binary["text"], binary["base64"], binary["at"]) == (None, "/w==", None)


def test_since_is_a_duration_or_a_time() -> None:
    now_ms = time.time_ns() // 1_000_000
    assert abs(now_ms - 600_000 - since_ms("10m")) < 60_000
    assert since_ms("2026-01-31T12:00:00Z") == since_ms("2026-01-31T13:00:00+01:00") == 1_769_860_800_000
    with pytest.raises(RequestError, match="--since: 'soon' is no time"):
        since_ms("soon")
