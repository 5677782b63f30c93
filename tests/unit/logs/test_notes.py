"""The log of attempts that never started."""

from __future__ import annotations

from pathlib import Path

from towline import logs
from towline.logs.notes import MOST_ATTEMPTS, tell_never_started

LINES = ((1_000, "asking the registry: x:1"), (2_500, "it never started: no such\nimage"))


def test_what_was_tried_is_told_with_its_times(tmp_path: Path) -> None:
    tell_never_started(tmp_path, ["a", "b"], LINES)
    for name in ("a", "b"):
        folder = str(tmp_path / name)
        data, index, end = logs.read(folder, "stderr", 0, 1_000)
        first = b"[towline: asking the registry: x:1]\n"
        assert data == first + b"[towline: it never started: no such image]\n"
        assert index == ((0, 1_000), (len(first), 2_500))
        assert end
        assert len(logs.markers(folder)) == 2, "none of it is the command's own"
        assert logs.read(folder, "stdout", 0, 10) == (b"", (), True)


def test_what_an_attempt_has_printed_is_left_alone(tmp_path: Path) -> None:
    writer = logs.Writer(str(tmp_path / "a"), 100)
    writer.write(0, b"text", 1)
    writer.close()
    tell_never_started(tmp_path, ["a"], LINES)
    assert logs.size(str(tmp_path / "a"), "stderr") == 0


def test_a_failure_of_very_many_is_not_written_for_each(tmp_path: Path) -> None:
    tell_never_started(tmp_path, [f"a-{at}" for at in range(MOST_ATTEMPTS + 50)], LINES)
    assert len(list(tmp_path.iterdir())) == MOST_ATTEMPTS
