"""What is written onto a terminal, what a JOB argument means, and how errors are told."""

from __future__ import annotations

import json

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from towline.cli.screen import terminal
from towline.errors import (
    InvalidDocument,
    NotFound,
    OperatorError,
    Problem,
    RequestError,
    StaleTerm,
    TowlineError,
    Unavailable,
)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("flights", terminal.Reference("flights")),
        ("flights.v2", terminal.Reference("flights.v2")),
        ("flights/count", terminal.Reference("flights", "count")),
        ("flights/count.3", terminal.Reference("flights", "count", 3)),
        ("flights.v2/count.0", terminal.Reference("flights.v2", "count", 0)),
    ],
)
def test_references(text: str, meaning: terminal.Reference) -> None:
    assert terminal.reference(text) == meaning


@pytest.mark.parametrize("text", ["", "/", "/a", "a/", "a/b.", "a/b.x", "a/b.-1", "a/b.1.2", "a/b.²"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        terminal.reference(text)


@given(st.text())
def test_safe_text_can_do_nothing_to_a_terminal(text: str) -> None:
    shown = terminal.safe(text)
    assert all(char in "\n\t" or (ord(char) >= 32 and not 127 <= ord(char) < 160) for char in shown)
    assert terminal.safe(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bplain", "plain"),
        ("bell\x07", "bell\\x07"),
        ("cut off \x1b[", "cut off "),
        ("über\tall\n", "über\tall\n"),
        ("right to left \u202e", "right to left \\u202e"),
    ],
)
def test_control_sequences_are_taken_out(text: str, shown: str) -> None:
    assert terminal.safe(text) == shown


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("no"), 2),
        (NotFound("no"), 2),
        (InvalidDocument([Problem("a", "no")]), 2),
        (Unavailable("no"), 3),
        (StaleTerm("no"), 3),
        (OperatorError("no"), 1),
    ],
)
def test_each_error_has_its_exit_status(
    error: TowlineError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    with pytest.raises(typer.Exit) as ended:
        terminal.end(work)
    assert ended.value.exit_code == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no" in captured.err


def test_problems_are_told_one_a_line_with_place_and_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [
        Problem("tasks.a.resources.memory", "is '64 XB'", "write 64Mi", 12),
        Problem("", "is \x1b[31mempty"),
    ]
    assert terminal.tell(InvalidDocument(problems, "job.yaml")) == 2
    assert capsys.readouterr().err.splitlines() == [
        "job.yaml:12: tasks.a.resources.memory: is '64 XB' (write 64Mi)",
        "job.yaml: is empty",
    ]


def test_interruption_has_its_own_status() -> None:
    def work() -> int:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as ended:
        terminal.end(work)
    assert ended.value.exit_code == 130


def test_json_is_one_line_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.write_json({"a": None, "b": ["\x1b"]})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": None, "b": ["\x1b"]}
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.42, "0.42 s"), (12.34, "12.3 s"), (185, "3m05s"), (7620, "2h07m"), (270_000, "3d03h")],
)
def test_lengths_of_time(seconds: float, shown: str) -> None:
    assert terminal.length(seconds) == shown


def test_table_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("id", "name"), [("1", "a\x1b[2J"), ("1234", None)])
    assert capsys.readouterr().out.splitlines() == ["ID    NAME", "1     a", "1234  -"]


def test_a_row_of_a_table_is_a_line_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("path", "size"), [("new\nline", "2 B"), ("tab\t", None)])
    assert capsys.readouterr().out.splitlines() == ["PATH       SIZE", "new\\nline  2 B", "tab\\t      -"]
