"""The times of an attempt agree with those of its output, which are whole ms of the wall clock, cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towline.agent.supervision import kernel
from towline.agent.supervision.ending import end_ms
from towline.agent.supervision.journal import Started

MS = 1_000_000
some_ns = st.integers(0, 30).map(lambda tenths: tenths * MS // 10)


class Clocks:
    """A wall clock and a monotonic one that go on by ``look_ns`` with each look at either."""

    def __init__(self, wall_ns: int, monotonic_ns: int, look_ns: int) -> None:
        self.wall_ns, self.monotonic_ns, self.look_ns = wall_ns, monotonic_ns, look_ns

    def on(self, by_ns: int) -> None:
        self.wall_ns += by_ns
        self.monotonic_ns += by_ns

    def wall(self) -> int:
        self.on(self.look_ns)
        return self.wall_ns

    def monotonic(self) -> int:
        self.on(self.look_ns)
        return self.monotonic_ns


def started(at_ms: int, monotonic_ms: int) -> Started:
    return Started("a", 1, False, at_ms, monotonic_ms, 0, 0, 0, (0, 0))


@settings(max_examples=400)
@given(wall_ns=some_ns, monotonic_ns=some_ns, ran_ns=some_ns, look_ns=st.sampled_from([0, 9 * MS // 10]))
def test_no_end_lies_before_the_last_output(
    wall_ns: int, monotonic_ns: int, ran_ns: int, look_ns: int
) -> None:
    """``look_ns``: how long each look at the start takes, where the supervisor has to wait for a CPU."""
    clocks = Clocks(wall_ns, monotonic_ns, look_ns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel.time, "time_ns", clocks.wall)
        patch.setattr(kernel.time, "monotonic_ns", clocks.monotonic)
        start = started(*kernel.wall_and_monotonic_ms())
        clocks.look_ns = 0
        clocks.on(ran_ns)
        printed_ms = kernel.wall_ms()
        ended_ms = end_ms(start, kernel.time.monotonic_ns())
    assert start.at_ms <= printed_ms <= ended_ms
    assert ended_ms * MS - clocks.wall_ns < 2 * MS + look_ns, "no more than what was cut is put on"


def test_an_end_does_not_move_with_the_wall_clock() -> None:
    assert end_ms(started(at_ms=5_000, monotonic_ms=70), 75 * MS) == 5_005
    assert end_ms(started(at_ms=5_000, monotonic_ms=70), 75 * MS + 1) == 5_006
