"""Full collections are made in quiet moments, once they are due."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from towline import garbage


@pytest.fixture(autouse=True)
def _collector_as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_a_full_collection_waits_for_a_quiet_moment() -> None:
    garbage.settle()
    gc.collect()
    seen: list[int] = []

    def told(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            seen.append(info["generation"])

    gc.callbacks.append(told)
    try:
        assert not garbage.collect_if_due()
        kept = [[at] for at in range(200_000)]
        assert seen and 2 not in seen
        assert garbage.collect_if_due()
        assert seen[-1] == 2
        assert not garbage.collect_if_due()
    finally:
        gc.callbacks.remove(told)
    assert len(kept) == 200_000


class Ring:
    """It holds itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.me = self


def test_what_came_after_the_start_is_still_collected() -> None:
    garbage.settle()
    Ring()
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Ring)]
