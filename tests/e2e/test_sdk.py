"""The SDK against real servers: the guide's examples, and servers that die."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.home import LONG_S, Home, Maker

from towline.client import SyncClient, connect
from towline.model.views import EventView

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "sdk.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
TOLD = [
    "count succeeded\nelement 3\nsum 3\n30\nsucceeded\n",
    "succeeded succeeded\n",
    "True\n",
    "['default']\ndefault\n['default']\n",
]
LINES = 400


def test_the_guides_examples_say_what_they_should(home: Home) -> None:
    assert len(EXAMPLES) == len(TOLD)
    for example, told in zip(EXAMPLES, TOLD, strict=True):
        assert _python(home, example) == told


def _python(home: Home, program: str) -> str:
    home.tow("nodes")
    done = subprocess.run(
        [sys.executable, "-c", program], env=home.env, cwd=home.work, capture_output=True, text=True,
        timeout=LONG_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.one_machine(
    "kills a server and has the next command start another; test_takeover.py is for clusters"
)
async def test_events_and_output_go_on_over_a_servers_death(home: Home, script: Maker) -> None:
    """Each event once and in order, each byte once, whoever served it."""
    marks = home.work / "marks"
    marks.mkdir()
    body = f"for n in $(seq {LINES}); do echo line $n; [ -e {marks}/quick ] || sleep 0.02; done"
    file = home.job_file({"say": script(body), "last": script("true", needs=["say"])})
    client = await connect(home.path)
    async with client, asyncio.timeout(LONG_S):
        job = await client.submit(file)
        told: list[EventView] = []
        text: list[bytes] = []

        async def events() -> None:
            async for event in job.events():
                told.append(event)

        async def output() -> None:
            async for chunk in job.logs("say", 0, follow=True):
                text.append(chunk.data)

        async def deaths() -> None:
            for seen in (20, 60):
                while b"".join(text).count(b"\n") < seen:  # noqa: ASYNC110 - the reader sets no event
                    await asyncio.sleep(0.02)
                for pid in home.processes().get("server", []):
                    os.kill(pid, signal.SIGKILL)
            (marks / "quick").touch()

        await asyncio.gather(events(), output(), deaths())
        assert b"".join(text).decode().split("\n") == [*(f"line {n}" for n in range(1, LINES + 1)), ""]
        assert told == [event async for event in job.events()], "as who reads them all at once"
        assert len({event.cursor for event in told}) == len(told)
        kinds = [event.kind for event in told]
        assert [kinds.count(kind) for kind in ("job.submitted", "task.ended", "job.ended")] == [1, 2, 1]
        assert kinds[-1] == "job.ended"


async def test_a_running_event_loop_is_not_stopped(home: Home) -> None:
    with pytest.raises(RuntimeError, match="use `await connect"):
        SyncClient(home.path)
