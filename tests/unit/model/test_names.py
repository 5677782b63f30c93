"""How values are shown, and what was probably meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.model.document.lines import path_text
from towline.model.names import MAX_SHOWN, closest, did_you_mean, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        (3, "3"),
        (0.5, "0.5"),
        ("a\nb", r"'a\nb'"),
        ("\x1b[2J\u202e", r"'\x1b[2J\u202e'"),
        ("\ud800", r"'\ud800'"),
        ([1], "a list"),
        ({}, "a mapping"),
        (10**100, "a number of over 60 digits"),
    ],
)
def test_values_are_shown_in_one_safe_line(value, text):
    assert shown(value) == text


@given(st.text())
def test_no_text_breaks_the_line_or_fills_the_screen(text):
    assert shown(text).isprintable() and len(shown(text)) <= MAX_SHOWN * 10 + 2


def test_paths_quote_what_is_no_plain_name():
    assert path_text(["tasks", "a b", "env", "A.B", 3]) == "tasks.'a b'.env.'A.B'[3]"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("comand", "command"),
        ("cmd", "command"),
        ("depends_on", "needs"),
        ("volumes", "mounts"),
        ("Environment", "env"),
        ("time_out", "timeout"),
        ("zzz", None),
        ("", None),
        ("x" * 1_000, None),
    ],
)
def test_what_was_meant(name, meant):
    assert closest(name, ["command", "needs", "mounts", "env", "timeout"]) == meant


def test_where_nothing_is_near_what_there_is_is_told():
    assert did_you_mean("zzz", ["a", "b"]) == "known are a, b"
    assert did_you_mean("zzz", []) == ""
    assert did_you_mean("zzz", [f"n{at}" for at in range(30)]).endswith("n19, …")
