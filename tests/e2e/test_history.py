"""The checker of histories finds what is planted, and nothing in a history that is sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.e2e.history import Element, History, judge
from tests.e2e.lives import Life, read_life


def attempt(number: int, **fields: Any) -> dict[str, Any]:
    told = {"state": "finished", "reason": "exited", "exit_code": 0, "message": None}
    return {"number": number, **told, **fields}


LOST = {"state": "lost", "reason": "node_lost", "exit_code": None}


def element(**fields: Any) -> Element:
    """Lost once, then it succeeded."""
    sound = Element(
        name="a.0",
        on_disconnect="stop",
        state="succeeded",
        exit_code=0,
        attempts=[attempt(1, **LOST), attempt(2)],
        lives={1: Life(1, [1.0, 2.0], None, 0), 2: Life(1, [3.0, 4.0], 0, 3)},
        printed=b"0\n1\n2\n",
    )
    return sound._replace(**fields)


def event(number: int, kind: str, **data: Any) -> dict[str, Any]:
    return {"cursor": f"default:{number}", "kind": kind, "job": "j", "data": data}


ENDED = {"task": "a", "index": 0, "element_state": "succeeded"}


def history(*elements: Element, **fields: Any) -> History:
    events = [event(1, "node.lost", name="n1"), event(2, "attempt.finished", **ENDED)]
    return History(events, ["j"], ["j"], [*elements], [])._replace(**fields)


def test_a_sound_history_is_passed() -> None:
    assert judge(history(element()), lost=["n1"]) == []


def _lives(first: Life, second: Life) -> dict[int, Life]:
    return {1: first, 2: second}


SECOND = Life(1, [3.0, 4.0], 0, 3)
PLANTED: list[tuple[str, Callable[[], History], str]] = [
    ("a lost job", lambda: history(found=[]), "j was accepted and is unknown"),
    ("a lost node", lambda: history(element(), events=[event(1, "node.lost", name="n2")]), "n2 was declared"),
    ("a gap", lambda: history(events=[event(2, "node.up")]), "gaps or repetitions"),
    (
        "two ends",
        lambda: history(events=[event(n, "attempt.finished", **ENDED) for n in (1, 2)]),
        "a.0 has ended twice",
    ),
    ("left over", lambda: history(left=["process 7"]), "left over: process 7"),
    ("no end", lambda: history(element(state="active")), "has not ended: active"),
    ("numbers", lambda: history(element(attempts=[attempt(2)])), "its attempts are"),
    ("too many", lambda: history(element(most=1)), "had 2 attempts"),
    ("unknown", lambda: history(element(attempts=[attempt(1, exit_code=0)])), "attempt 2 ran and is unknown"),
    (
        "a second start",
        lambda: history(element(lives=_lives(Life(2, [1.0], None, 0), SECOND))),
        "attempt 1 was started 2 times",
    ),
    (
        "an overlap",
        lambda: history(element(lives=_lives(Life(1, [1.0, 3.0], None, 0), SECOND))),
        "attempts 1 and 2 lived at once for 0 ms",
    ),
    (
        "an overlap under keep with what was not lost",
        lambda: history(
            element(
                on_disconnect="keep",
                attempts=[attempt(1, reason="preempted", exit_code=None), attempt(2)],
                lives=_lives(Life(1, [1.0, 3.5], None, 0), SECOND),
            )
        ),
        "lived at once for 500 ms",
    ),
    ("wait", lambda: history(element(on_disconnect="wait")), "was placed again under wait"),
    (
        "a number that falls",
        lambda: history(element(lives=_lives(Life(1, [9.0], None, 0), SECOND))),
        "attempt 2 began before attempt 1",
    ),
    (
        "a wrong code",
        lambda: history(element(attempts=[attempt(1, **LOST), attempt(2, exit_code=3)])),
        "really ended with 0",
    ),
    (
        "a wrong reason",
        lambda: history(element(attempts=[attempt(1), attempt(2, **LOST)])),
        "really ended with",
    ),
    ("a line that is missing", lambda: history(element(printed=b"0\n2\n")), "a gap or a repetition"),
    ("lines at the end", lambda: history(element(printed=b"0\n1\n")), "2 lines of 3"),
    ("other bytes", lambda: history(element(printed=b"0\n1\nx\n")), "not what it wrote"),
]


@pytest.mark.parametrize(("make", "words"), [each[1:] for each in PLANTED], ids=[each[0] for each in PLANTED])
def test_what_is_planted_is_found(make: Callable[[], History], words: str) -> None:
    assert words in "; ".join(judge(make(), lost=["n1"]))


def test_under_keep_lives_may_overlap_once_one_is_lost() -> None:
    overlapping = element(on_disconnect="keep", lives=_lives(Life(1, [1.0, 3.5], None, 0), SECOND))
    assert judge(history(overlapping)) == []


def test_a_life_is_read_up_to_where_it_was_killed(tmp_path: Any) -> None:
    file = tmp_path / "a.0.1"
    file.write_text("begun\n1.000\n2.5")
    assert read_life(file) == Life(1, [1.0], None, 0)
    file.write_text("begun\n1.000\nexit 7 12\n")
    assert read_life(file) == Life(1, [1.0], 7, 12)
    assert read_life(tmp_path / "none") == Life(0, [], None, 0)
