"""An Engine's log in the attempt's files, with secrets masked, however often it is read."""

from __future__ import annotations

import shutil
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.conformance.runtimes.registry import process_plan

from towline import logs
from towline.agent.docker.output import Output
from towline.runtime.port import Plan

TOKEN = b"tok-0123456789"
LOG = [(0, b"is " + TOKEN[:5]), (1, b"err\n"), (0, TOKEN[5:] + b"\n" + TOKEN[:4]), (0, b"!"), (1, TOKEN[:9])]


async def framed(pieces: Sequence[tuple[int, bytes]]) -> AsyncIterator[bytes]:
    for stream, text in pieces:
        yield struct.pack(">BxxxL", stream + 1, len(text)) + text


def plan_with_secret(tmp_path: Path, **fields: object) -> Plan:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "TOKEN").write_bytes(TOKEN + b"\n")
    return process_plan(str(tmp_path), "job-0-0-1", "true", secrets=str(folder), **fields)


async def test_each_reading_goes_on_behind_what_is_masked(tmp_path: Path) -> None:
    plan = plan_with_secret(tmp_path)
    for count in range(len(LOG)):  # followed, each time by another agent
        output = Output(plan)
        await output.take(framed(LOG[:count]))
        output.close()
        assert TOKEN[5:] not in logs.read(plan.logs, "stdout", 0, 1000).data
    output = Output(plan)
    await output.take(framed(LOG), last=True)
    output.finish()
    assert logs.read(plan.logs, "stdout", 0, 1000).data == b"is ***\ntok-!"
    assert logs.read(plan.logs, "stderr", 0, 1000).data == b"err\n***", "most of a value is masked too"


async def test_what_differs_is_put_right_and_what_is_over_the_limit_counted(tmp_path: Path) -> None:
    plan = plan_with_secret(tmp_path, max_log_bytes=8)
    output = Output(plan)
    await output.take(framed([(0, b"is "), LOG[2], (0, b"?")]))  # a piece was left out
    await output.take(framed([LOG[0], *LOG[2:4]]), last=True)
    output.finish()
    assert logs.read(plan.logs, "stdout", 0, 8).data == b"is ***\nt"
    assert logs.dropped(plan.logs) == (4, 0)


async def test_nothing_more_is_kept_once_the_secrets_are_gone(tmp_path: Path) -> None:
    plan = plan_with_secret(tmp_path)
    output = Output(plan)
    await output.take(framed(LOG[:2]))
    output.close()
    shutil.rmtree(plan.secrets)
    again = Output(plan)
    await again.take(framed(LOG), last=True)
    again.finish()
    shown = logs.read(plan.logs, "stdout", 0, 1000).data
    assert shown.startswith(b"is \n[towline: what it printed from here on was not kept: its secrets are gone")
    assert TOKEN[5:] not in shown
