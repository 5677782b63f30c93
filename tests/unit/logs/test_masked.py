"""Output with secrets through real pipes, and supervisors that die at every step of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from towline import logs
from towline.logs import MaskedWriter, masked, writer
from towline.logs.entries import STREAMS
from towline.logs.masking import Masker, patterns

TOKEN = b"tok-abcabcabc-0123456789"
KEY = b"abcabcabc-01234567890"
NONE_OF = (TOKEN, KEY, TOKEN[4:], b"0123456789")


@pytest.fixture
def folder() -> Iterator[str]:
    """Where secrets' files could be: in memory, as splice has it."""
    made = tempfile.mkdtemp(prefix="tow-test-", dir="/dev/shm")
    yield f"{made}/a1.output"
    shutil.rmtree(made)


class Attempt:
    """The attempt's side: what it is yet to print, in pieces, and its pipes."""

    def __init__(self, pieces: list[tuple[int, bytes]]) -> None:
        self.left = list(pieces)
        self.pipes = [os.pipe2(os.O_NONBLOCK) for _ in STREAMS]

    def close(self) -> None:
        for pipe in self.pipes:
            for fd in pipe:
                os.close(fd)

    def printed_by(self, kept: MaskedWriter) -> None:
        """It prints a piece, that is moved, and so on to the end."""
        while True:
            for stream in (0, 1):
                while kept.move(stream, self.pipes[stream][0], 1 << 20, 1000) > 0:
                    pass
            if not self.left:
                return
            stream, piece = self.left.pop(0)
            os.write(self.pipes[stream][1], piece)


def text_of(pieces: list[tuple[int, bytes]], stream: int) -> bytes:
    masker = Masker(patterns([TOKEN, KEY]))
    return masker.feed(b"".join(piece for of, piece in pieces if of == stream)) + masker.finish()


PIECES = [
    (0, b"plain\n"),
    (0, TOKEN[:7]),
    (1, b"err " + TOKEN[:3]),
    (0, TOKEN[7:] + b"0 and " + KEY[:5]),
    (0, KEY[5:]),
    (0, b"\n" + TOKEN[:12]),
    (1, TOKEN[3:]),
    (0, b"\0\xff no\n"),
    (1, b"x" * 70),
    (0, TOKEN[:-1] + b"!" + TOKEN[:9]),
]


def test_what_is_split_over_writes_is_masked_in_each_stream(tmp_path: Path, folder: str) -> None:
    attempt = Attempt(PIECES)
    kept = MaskedWriter(str(tmp_path), 1 << 20, folder, lambda: [TOKEN, KEY])
    attempt.printed_by(kept)
    kept.finish(1000)
    assert (tmp_path / "stdout").read_bytes() == text_of(PIECES, 0)
    assert (tmp_path / "stdout").read_bytes().startswith(b"plain\n*** and ***\ntok-abcabcab\0\xff no\n")
    assert (tmp_path / "stderr").read_bytes() == b"err ***" + b"x" * 70
    attempt.close()


def test_what_could_be_a_beginning_is_held_and_the_rest_is_not(tmp_path: Path, folder: str) -> None:
    attempt = Attempt([(0, b"password: " + TOKEN[:10])])
    kept = MaskedWriter(str(tmp_path), 1 << 20, folder, lambda: [TOKEN])
    attempt.printed_by(kept)
    assert (tmp_path / "stdout").read_bytes() == b"password: "
    attempt.left = [(0, b"\n")]
    attempt.printed_by(kept)
    assert (tmp_path / "stdout").read_bytes() == b"password: " + TOKEN[:10] + b"\n"
    kept.finish(1)
    attempt.close()


class Killed(BaseException):
    pass


class DyingSystem:
    """``os``, whose caller is killed after ``steps`` calls that change something."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __getattr__(self, name: str) -> Any:
        call = getattr(os, name)
        if name not in ("splice", "pwrite", "ftruncate", "open"):
            return call

        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.steps == 0:
                raise Killed
            self.steps -= 1
            return call(*args, **kwargs)

        return counted


def supervise(out: str, limit: int, attempt: Attempt, writers: list[MaskedWriter]) -> None:
    kept = MaskedWriter(f"{out}.log", limit, out, lambda: [TOKEN, KEY], resume=Path(out).exists())
    writers.append(kept)
    attempt.printed_by(kept)
    kept.finish(1000)


def killed_after(monkeypatch: pytest.MonkeyPatch, steps: int, work: Callable[[], None]) -> bool:
    """Whether it was killed before it had done its work."""
    dying = DyingSystem(steps)
    with monkeypatch.context() as patched:
        patched.setattr(masked, "os", dying)
        patched.setattr(writer, "os", dying)
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("limit", [1 << 20, 60])
@pytest.mark.parametrize("gap", [3, 1000])
def test_whenever_the_supervisor_dies_nothing_is_lost_doubled_or_shown(
    folder: str, monkeypatch: pytest.MonkeyPatch, limit: int, gap: int
) -> None:
    """The first one dies after each number of steps; those after it after ``gap`` more."""
    monkeypatch.setattr(masked, "_SWITCH_BYTES", 24)
    steps = 0
    while True:
        out = f"{folder}{steps}"
        attempt = Attempt(PIECES)
        deaths = 0
        writers: list[MaskedWriter] = []

        whole = partial(supervise, out, limit, attempt, writers)
        while killed_after(monkeypatch, steps if deaths == 0 else gap + deaths, whole):
            deaths += 1
            shown = b"".join(path.read_bytes() for path in Path(f"{out}.log").glob("std*"))
            assert not [value for value in NONE_OF if value in shown]
        sound(f"{out}.log", limit)
        attempt.close()
        for kept in writers:
            kept.close()
        if deaths == 0:
            break
        steps += 1
    assert steps > 40


def sound(directory: str, limit: int) -> None:
    """All that was printed is there, masked, or counted as dropped."""
    dropped = logs.dropped(directory)
    for stream, name in enumerate(STREAMS):
        expected = text_of(PIECES, stream)
        found = Path(directory, name).read_bytes()
        if dropped[stream]:
            found, _, note = found.partition(b"\n[towline: ")
            assert note.count(b"towline") == 0, "there is one note"
        assert expected.startswith(found)
        assert len(found) + dropped[stream] == len(expected)
    assert sum(dropped) == max(0, sum(len(text_of(PIECES, stream)) for stream in (0, 1)) - limit)


def test_a_writer_without_values_keeps_nothing(tmp_path: Path, folder: str) -> None:
    attempt = Attempt([(0, TOKEN)])
    kept = MaskedWriter(str(tmp_path), 1 << 20, folder, None, resume=True)
    attempt.printed_by(kept)
    kept.finish(1)
    shown = (tmp_path / "stdout").read_bytes()
    assert b"24 bytes of stdout were dropped here: its secrets are gone" in shown
    assert TOKEN not in shown
    attempt.close()


def test_no_room_in_memory_drops_from_there_on_for_good(tmp_path: Path, folder: str) -> None:
    attempt = Attempt([(0, b"before\n" + TOKEN[:9])])
    kept = MaskedWriter(str(tmp_path), 1 << 20, folder, lambda: [TOKEN])
    attempt.printed_by(kept)
    os.close(kept._streams[0].file)
    kept._streams[0].file = os.open("/dev/full", os.O_WRONLY)
    attempt.left = [(0, TOKEN[9:] + b"after")]
    attempt.printed_by(kept)
    kept.close()
    again = MaskedWriter(str(tmp_path), 1 << 20, folder, lambda: [TOKEN], resume=True)
    attempt.left = [(0, b"more")]
    attempt.printed_by(again)
    again.finish(1)
    shown = (tmp_path / "stdout").read_bytes()
    assert shown.startswith(b"before\n\n[towline: ")
    assert b"bytes of stdout were dropped here: they could not be masked" in shown
    attempt.close()


def test_a_note_comes_behind_what_was_held(tmp_path: Path, folder: str) -> None:
    attempt = Attempt([(1, b"abc tok-")])
    kept = MaskedWriter(str(tmp_path), 1 << 20, folder, lambda: [TOKEN])
    attempt.printed_by(kept)
    kept.remark(1, "a gap", 1)
    kept.finish(1)
    assert (tmp_path / "stderr").read_bytes() == b"abc tok-\n[towline: a gap]\n"
    attempt.close()
