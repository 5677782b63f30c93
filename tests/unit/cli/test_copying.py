"""The output of ``tow run -- COMMAND`` on its way to whoever reads ours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Coroutine
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from towline.cli import logs
from towline.cli.logs import Copying
from towline.cli.screen.descriptors import Unwritable
from towline.client import LogChunk
from towline.errors import OperatorError

MUCH = bytes(range(256)) * 4096


async def said(*parts: bytes, error: Exception | None = None) -> AsyncGenerator[LogChunk, None]:
    offset = 0
    for part in parts:
        yield LogChunk(stream="stdout", offset=offset, data=part)
        offset += len(part)
    if error is not None:
        raise error


async def ended() -> str:
    return "ended"


def outs(stdout: BinaryIO) -> dict[str, BinaryIO]:
    return {"stdout": stdout, "stderr": stdout}


def copied(chunks: AsyncGenerator[LogChunk, None], ending: Coroutine[Any, Any, Any], path: str) -> bool:
    """Copy into a file until the end; returns whether that was complete."""

    async def work() -> bool:
        copying = Copying(chunks, outs(out))
        try:
            await copying.until_ended(ending)
        finally:
            copying.cancel()
        return copying.complete

    with Path(path).open("wb", buffering=0) as out:
        return asyncio.run(work())


def test_a_slow_reader_gets_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "OUTPUT_WAIT_S", 0.001)
    ours, theirs = os.pipe()

    async def work() -> bytes:
        copying = Copying(said(MUCH, b"last"), outs(out))
        waiting = asyncio.create_task(copying.until_ended(ended()))
        # Many times as long as it waits for a server that says nothing.
        await asyncio.sleep(20 * logs.OUTPUT_WAIT_S)
        reading = asyncio.create_task(asyncio.to_thread(reader.read, len(MUCH) + 4))
        assert await waiting == "ended"
        assert copying.complete
        out.flush()
        return await reading

    with os.fdopen(ours, "rb") as reader, os.fdopen(theirs, "wb") as out:
        assert asyncio.run(work()) == MUCH + b"last"


def test_output_that_does_not_come_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "OUTPUT_WAIT_S", 0.001)

    async def silent() -> AsyncGenerator[LogChunk, None]:
        await asyncio.Event().wait()
        yield LogChunk(stream="stdout", offset=0, data=b"")

    assert not copied(silent(), ended(), os.devnull)
    assert "did not come" in capsys.readouterr().err


def test_output_that_cannot_be_had_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert not copied(said(b"x", error=OperatorError("the node is lost")), ended(), os.devnull)
    assert capsys.readouterr().err == "error: its output cannot be had: the node is lost\n"


def test_a_write_error_ends_it_before_the_job_does() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Unwritable, match="No space left"):
        copied(said(b"x"), never(), "/dev/full")


def test_dropped_bytes_are_told_on_stderr_too(capsys: pytest.CaptureFixture[str]) -> None:
    note = b"\n[towline: 17 bytes of stdout were dropped here: logs.max_bytes is 4]\n"
    assert copied(said(b"abcd" + note[:9], note[9:]), ended(), os.devnull)
    assert capsys.readouterr().err == (
        "warning: 17 bytes of stdout were dropped: logs.max_bytes is 4; a larger logs.max_bytes keeps more.\n"
    )


def test_what_is_missing_of_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def noted() -> AsyncGenerator[LogChunk, None]:
        yield LogChunk(stream="stdout", offset=0, data=b"some")
        yield LogChunk(stream="stderr", offset=0, data=b"", note="Node n1 is gone.")

    assert not copied(noted(), ended(), str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"some"
    assert capsys.readouterr().err == "warning: Node n1 is gone.\n"
