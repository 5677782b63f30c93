"""What a server refuses of what a node ships."""

from __future__ import annotations

import pytest

from towline.logs.archive import Admission, Extent, Frame
from towline.logs.archive.admission import MARKERS_BYTES

A = "job1-0-0-1"


def part(offset: int, data: bytes = b"x", **changes: object) -> Frame:
    fields = {"attempt": A, "stream": 0, "times": (), "end": False, **changes}
    return Frame(offset=offset, data=data, **fields)  # type: ignore[arg-type]


@pytest.fixture
def admission() -> Admission:
    made = Admission(window_bytes=100_000)
    made.open(A, Extent((10, 0), (False, False)), max_bytes=1_000)
    return made


def test_the_next_bytes_are_taken(admission: Admission) -> None:
    assert admission.take(part(10, b"abc", times=((10, 5, 0), (12, 5, 1)))) is None
    assert admission.take(part(13)) is None
    assert admission.take(part(0, stream=1, end=True)) is None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (part(10, attempt="job1-0-1-1"), "not opened"),
        (part(9), "10 follows next"),
        (part(11), "10 follows next"),
        (part(0), "10 follows next"),
        (part(10, b"x" * (1_000 + MARKERS_BYTES)), "logs.max_bytes"),
        (part(10, b"xy", times=((9, 5, 0),)), "times"),
        (part(10, b"xy", times=((12, 5, 0),)), "times"),
        (part(10, b"xy", times=((11, 5, 0), (10, 6, 0))), "times"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_attempt_closed(
    admission: Admission, wrong: Frame, says: str
) -> None:
    assert says in str(admission.take(wrong))
    assert wrong.attempt != A or "not opened" in str(admission.take(part(10)))


def test_nothing_follows_the_end(admission: Admission) -> None:
    assert admission.take(part(10, end=True)) is None
    assert admission.take(part(11)) == "its stream had ended"


def test_no_more_waits_than_the_window() -> None:
    admission = Admission(window_bytes=10)
    admission.open(A, Extent((0, 0), (False, False)), max_bytes=1_000)
    assert admission.take(part(0, b"12345678")) is None
    admission.durable(8)
    assert admission.take(part(8, b"12345678")) is None
    assert "ahead" in str(admission.take(part(16, b"12345678")))
