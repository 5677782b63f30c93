"""The face for programs without asyncio: what waits in its thread, and what Ctrl-C does to it."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from collections.abc import AsyncGenerator, Callable, Iterator

import pytest

from towline.client.sync import _Loop


@pytest.fixture
def loop() -> Iterator[_Loop]:
    made = _Loop()
    yield made
    made.close()


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C is heard, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_what_the_work_says_comes_back(loop: _Loop) -> None:
    async def answers() -> int:
        return 7

    async def fails() -> None:
        raise ValueError("no")

    assert loop.run(answers()) == 7
    with pytest.raises(ValueError, match="no"):
        loop.run(fails())


def test_an_interrupt_cancels_what_is_waited_for(loop: _Loop, interrupts: None) -> None:
    ended: list[str] = []

    async def waits() -> None:
        threading.Thread(target=interrupt).start()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("it has ended")

    for times in range(1, 4):
        with pytest.raises(KeyboardInterrupt):
            loop.run(waits())
        assert len(ended) == times


def test_an_interrupt_before_the_work_has_begun_leaves_nothing(
    loop: _Loop, interrupts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, free = threading.Event(), threading.Event()
    hand_over, handed = loop._loop.call_soon_threadsafe, list[object]()

    async def never() -> None:
        raise AssertionError("it has begun")

    def hold() -> None:
        held.set()
        free.wait(30)

    def hand_over_one(call: Callable[[], object]) -> None:
        hand_over(call)
        handed.append(call)
        if len(handed) == 1:
            threading.Thread(target=interrupt).start()
        else:
            free.set()  # only now, with both the beginning and the end of the work before it

    hand_over(hold)
    assert held.wait(30)
    monkeypatch.setattr(loop._loop, "call_soon_threadsafe", hand_over_one)
    work = never()
    with pytest.raises(KeyboardInterrupt):
        loop.run(work)
    monkeypatch.undo()
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


def test_an_interrupt_ends_a_stream(loop: _Loop, interrupts: None) -> None:
    ended: list[str] = []

    async def items() -> AsyncGenerator[int, None]:
        try:
            yield 1
            threading.Thread(target=interrupt).start()
            await asyncio.Event().wait()
        finally:
            ended.append("it has ended")

    with pytest.raises(KeyboardInterrupt):
        for _ in loop.iterate(items()):
            pass
    assert ended
