"""Commands as children of ours: real processes, pipes and terminals, without a server."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from towline.agent.exec.inside import Ended
from towline.agent.exec.local import LocalInside
from towline.runtime.exec.marks import NAME, kill_marked
from towline.runtime.exec.process import ProcessEntering
from towline.runtime.port import CannotExec, Plan, Wish

MARK = f"test.{os.urandom(8).hex()}"


class Running:
    """A command, with what it has written so far."""

    def __init__(self, folder: Path, *argv: str, size: tuple[int, int] | None = None, **wish: str) -> None:
        plan = Plan(
            attempt="job-0-0-1", runtime="process", argv=(), env={"PATH": os.environ["PATH"]},
            directory=str(folder), logs="", out="", timeout_ms=None, grace_ms=0, max_log_bytes=0,
        )  # fmt: skip
        wanted = Wish(argv=argv, mark=MARK, terminal=size, **wish)  # type: ignore[arg-type]
        self.inside = LocalInside(ProcessEntering(), plan, 1, wanted, folder)
        self.wrote: dict[int, bytes] = {1: b"", 2: b""}
        self._news = asyncio.Event()

    async def take(self, stream: int, data: bytes) -> None:
        self.wrote[stream] += data
        self._news.set()

    async def until(self, words: bytes) -> None:
        async with asyncio.timeout(20):
            while words not in self.wrote[1]:
                self._news.clear()
                await self._news.wait()

    async def start(self) -> None:
        await self.inside.start()
        self.copying = asyncio.create_task(self.inside.copy_out(self.take))

    async def end(self) -> Ended:
        ended = await self.inside.wait()
        await self.copying
        return ended


@pytest_asyncio.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    before = _descriptors()
    yield
    assert kill_marked(MARK) == 0
    assert _descriptors() <= before


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def run(running: Running) -> Ended:
    try:
        await running.start()
        return await running.end()
    finally:
        await running.inside.close()


async def test_streams_are_apart_and_the_end_is_told(tmp_path: Path) -> None:
    running = Running(tmp_path, "sh", "-c", f"echo out; echo err >&2; echo ${NAME} $PWD; exit 3")
    assert await run(running) == Ended(code=3)
    assert running.wrote == {1: f"out\n{MARK} {tmp_path}\n".encode(), 2: b"err\n"}
    assert await run(Running(tmp_path, "sh", "-c", "kill -15 $$")) == Ended(signal=15)


async def test_input_is_taken_as_fast_as_it_is_read_and_its_end_passes_on(tmp_path: Path) -> None:
    running = Running(tmp_path, "cat")
    await running.start()
    data = os.urandom(1_000_000)
    await running.inside.write(data)
    await running.inside.end_input()
    assert await running.end() == Ended(code=0)
    assert running.wrote[1] == data
    with pytest.raises(BrokenPipeError):
        await running.inside.write(b"more")
    await running.inside.close()


async def test_what_it_leaves_behind_ends_with_it_and_holds_nobody_up(tmp_path: Path) -> None:
    running = Running(tmp_path, "sh", "-c", "sleep 1000 & setsid sleep 1000 & echo left")
    assert await run(running) == Ended(code=0)
    assert running.wrote[1] == b"left\n"


HEARS = """
import os, signal
def say(): os.write(1, b"%d %d\\n" % os.get_terminal_size()[::-1])
def hear(*_): {then}
say()
signal.signal(signal.{signal}, hear)
os.write(1, b"ready\\n")
while True: signal.pause()
"""
"""Not a shell: one that forks all the time loses a signal that comes in that moment."""


async def test_a_terminal_has_a_size_and_follows_it(tmp_path: Path) -> None:
    script = HEARS.format(signal="SIGWINCH", then="say(); os._exit(4)")
    running = Running(tmp_path, sys.executable, "-c", script, size=(33, 101))
    await running.start()
    await running.until(b"ready")
    running.inside.resize(44, 111)
    assert await running.end() == Ended(code=4)
    assert running.wrote[1] == b"33 101\r\nready\r\n44 111\r\n"
    await running.inside.close()


async def test_a_terminals_keys_are_heard(tmp_path: Path) -> None:
    script = HEARS.format(signal="SIGINT", then="os._exit(5)")
    running = Running(tmp_path, sys.executable, "-c", script, size=(24, 80))
    await running.start()
    await running.until(b"ready")
    await running.inside.write(b"\x03")
    assert await running.end() == Ended(code=5)
    await running.inside.close()
    running = Running(tmp_path, "cat", size=(24, 80))
    await running.start()
    await running.inside.write(b"line\n")
    await running.inside.end_input()
    assert await running.end() == Ended(code=0)
    await running.inside.close()


async def test_a_signal_reaches_its_process_group(tmp_path: Path) -> None:
    script = "trap 'exit 6' TERM; (trap 'echo child' TERM; echo ready; while :; do sleep 0.01; done) & wait"
    running = Running(tmp_path, "sh", "-c", script)
    await running.start()
    await running.until(b"ready")
    running.inside.signal(15)
    assert await running.end() == Ended(code=6)
    await running.inside.close()


@pytest.mark.parametrize(
    ("argv", "workdir", "status", "word"),
    [
        (("./nosuch",), None, 127, "was not found"),
        (("/etc",), None, 126, "is a directory"),
        (("./text",), None, 126, "no program for this machine"),
        (("./lost",), None, 126, "names an interpreter"),
        (("true",), "/nosuch", 126, "working directory '/nosuch' cannot be entered"),
    ],
)
async def test_what_cannot_be_executed_says_why(
    tmp_path: Path, argv: tuple[str, ...], workdir: str | None, status: int, word: str
) -> None:
    for name, content in (("text", "echo"), ("lost", "#!/nosuch/interpreter\n")):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)
    running = Running(tmp_path, *argv, **({"workdir": workdir} if workdir else {}))
    with pytest.raises(CannotExec, match=word) as error:
        await run(running)
    assert error.value.status == status


async def test_closing_kills_whatever_stage_it_is_in(tmp_path: Path) -> None:
    running = Running(tmp_path, "sh", "-c", "sleep 1000 & sleep 1000")
    await running.start()
    await running.inside.close()
    await running.copying
    starting = Running(tmp_path, "sleep", "1000")
    task = asyncio.create_task(starting.inside.start())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    await starting.inside.close()
    await Running(tmp_path, "sleep", "1000").inside.close()
