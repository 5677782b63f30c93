"""``tow logs``: what elements have written, byte for byte into a file or pipe, safely onto a terminal."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TypeVar

import typer

from towline.cli.arguments import AsJson, What, since_ms
from towline.cli.screen import terminal
from towline.cli.screen.descriptors import Unwritable, writable

if TYPE_CHECKING:
    from towline.client import Client, Job, LogChunk

MAX_HELD_BYTES = 64 * 1024
FOLLOWED_AT_ONCE = 16
OUTPUT_WAIT_S = 10.0
_PIPE_BUF_BYTES = 4096
"""So much a pipe takes without blocking once it takes anything."""
_DROPPED = re.compile(rb"\n\[towline: (\d+) bytes of (stdout|stderr) were dropped here: (.{1,200})\]\n")
_DROPPED_BYTES = 512

T = TypeVar("T")


def add(app: typer.Typer) -> None:
    app.command("logs")(logs)


def logs(
    what: What,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the output is complete.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", min=0, metavar="N", help="The last N lines only.")
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="When each line was written.")
    ] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, metavar="N", help="Of this attempt, not the latest.")
    ] = None,
    stream: Annotated[
        str, typer.Option("--stream", metavar="STREAM", help="stdout, stderr or both.")
    ] = "both",
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="What was written since: 10m ago, or a time as 2026-01-31T12:00Z."
        ),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Send control sequences to the terminal as they are.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Print what an element has written to stdout and stderr.

    Of a job or task with several elements, all are printed, each line with its element in front.
    Into a file or pipe the bytes go as they were written; on a terminal control sequences are
    taken out unless --raw is given.

    \b
    Examples:
      tow logs flights/count.3
      tow logs flights/count.3 -f --tail 20
      tow logs flights/count.3 --since 10m
      tow logs flights/report > report.txt
      tow logs flights/count.3 --attempt 1 --timestamps
    """

    async def work(client: Client) -> int:
        named = terminal.reference(what)
        _check_stream(stream)
        written_ms = None if since is None else since_ms(since)
        job = await client.job(named.job)
        options: dict[str, Any] = {"tail": tail, "stream": stream, "since": written_ms}
        if json:
            await _print_json(job, named, attempt, follow, options)
            return terminal.OK
        one = await _only(job, named)
        if one is not None:
            writer = Lines(sys.stdout.buffer, "", timestamps=timestamps, raw=raw)
            await copy(job.logs(*one, attempt=attempt, follow=follow, **options), writer)
        elif follow:
            await _follow_all(job, named.task, timestamps, raw, options)
        else:
            async for task, index in _started(job, named.task):
                writer = Lines(sys.stdout.buffer, f"{task}.{index} | ", timestamps=timestamps, raw=raw)
                await copy(job.logs(task, index, attempt=attempt, **options), writer)
        return terminal.OK

    terminal.ask(work)


def _check_stream(stream: str) -> None:
    if stream not in ("stdout", "stderr", "both"):
        from towline.errors import RequestError

        raise RequestError(f"--stream is stdout, stderr or both, and not {terminal.safe(stream)!r}.")


async def _only(job: Job, named: terminal.Reference) -> tuple[str, int] | None:
    """The one element that is meant; None where there are several."""
    if named.task is not None and named.index is not None:
        return named.task, named.index
    tasks = [task for task in job.submitted.tasks if named.task in (None, task.name)]
    if len(tasks) > 1 or (tasks and tasks[0].size > 1):
        return None
    return await job.only_element(named.task)


async def _started(job: Job, task: str | None) -> AsyncIterator[tuple[str, int]]:
    for view in job.submitted.tasks:
        if task not in (None, view.name):
            continue
        async with aclosing(job.elements(view.name)) as elements:
            async for element in elements:
                if element.attempts:
                    yield view.name, element.index


async def _follow_all(
    job: Job, task: str | None, timestamps: bool, raw: bool, options: dict[str, Any]
) -> None:
    """Follow each attempt from its start on, some at once, the next ones as these end."""
    places = asyncio.Semaphore(FOLLOWED_AT_ONCE)

    async def one(name: str, index: int, number: int) -> None:
        async with places:
            writer = Lines(sys.stdout.buffer, f"{name}.{index} | ", timestamps=timestamps, raw=raw)
            await copy(job.logs(name, index, attempt=number, follow=True, **options), writer)

    try:
        async with asyncio.TaskGroup() as group, aclosing(job.events()) as events:
            async for event in events:
                data: dict[str, Any] = event.data
                if event.kind == "elements.assigned" and task in (None, data["task"]):
                    for index, number in data["elements"]:
                        group.create_task(one(data["task"], index, number))
    except ExceptionGroup as group_of:
        raise group_of.exceptions[0] from None  # the first one has ended the others


async def copy(chunks: AsyncGenerator[LogChunk, None], writer: Lines) -> None:
    async with aclosing(chunks):
        notes: list[str] = []
        async for chunk in chunks:
            writer.take(chunk)
            notes += [chunk.note] if chunk.note is not None else []
    writer.end()
    for note in notes:
        terminal.say(terminal.safe(f"warning: {note}"))


async def _print_json(
    job: Job, named: terminal.Reference, attempt: int | None, follow: bool, options: dict[str, Any]
) -> None:
    one = await _only(job, named)
    task, index = one or (named.task, named.index)
    attempt = attempt or (await _latest_attempt(job, *one) if one else None)
    chunks = job.logs(task, index, attempt=attempt, follow=follow, **options)
    entries: list[dict[str, object]] = []
    notes: list[str] = []
    async for chunk in chunks:
        if chunk.note is None:
            entries.append(_entry(chunk))
        else:
            notes.append(chunk.note)
    if attempt is None and one:  # it was started while we followed
        attempt = await _latest_attempt(job, *one)
    terminal.write_json(
        {
            "job": job.id,
            "task": task,
            "index": index,
            "attempt": attempt,
            "entries": entries,
            "notes": notes,
        }
    )


async def _latest_attempt(job: Job, task: str, index: int) -> int | None:
    """The number of the attempt whose output is shown where none is named."""
    page = await job.task(task, cursor=str(index - 1) if index > 0 else None, limit=1)
    numbers = [attempt.number for view in page.elements if view.index == index for attempt in view.attempts]
    return max(numbers, default=None)


def _entry(chunk: LogChunk) -> dict[str, object]:
    """``text`` where it is UTF-8, else ``base64``; the other one is null."""
    from base64 import b64encode

    text, encoded = None, None
    try:
        text = chunk.data.decode()
    except UnicodeDecodeError:
        encoded = b64encode(chunk.data).decode()
    at = None if chunk.at is None else _time(chunk.at)
    return {"stream": chunk.stream, "at": at, "offset": chunk.offset, "text": text, "base64": encoded}


def _time(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"


class Lines:
    """Writes chunks: as bytes where nothing has to be added or taken out, else line by line.

    A line is held until it is complete, or over MAX_HELD_BYTES, or the output ends, so that lines of
    both streams and of several elements do not run into each other.
    """

    def __init__(self, out: BinaryIO, prefix: str, *, timestamps: bool, raw: bool) -> None:
        self._out = out
        self._prefix = prefix.encode()
        self._timestamps = timestamps
        self._clean = out.isatty() and not raw
        self._plain = not (prefix or timestamps or self._clean)
        self._held: dict[str, bytes] = {}
        self._begun_at: dict[str, int | None] = {}

    def take(self, chunk: LogChunk) -> None:
        if self._plain:
            self._out.write(chunk.data)
            self._out.flush()
            return
        held = self._held.get(chunk.stream, b"")
        if not held:
            self._begun_at[chunk.stream] = chunk.at
        *whole, rest = (held + chunk.data).split(b"\n")
        for line in whole:
            self._write(chunk.stream, line + b"\n")
            self._begun_at[chunk.stream] = chunk.at
        if len(rest) > MAX_HELD_BYTES:
            self._write(chunk.stream, rest + b"\n")
            rest = b""
        self._held[chunk.stream] = rest
        self._out.flush()

    def end(self) -> None:
        """The output is complete: write what was held, ending its line where others may follow."""
        for stream, rest in self._held.items():
            if rest:
                self._write(stream, rest + (b"\n" if self._prefix or self._clean else b""))
        self._held.clear()
        self._out.flush()

    def _write(self, stream: str, line: bytes) -> None:
        if self._clean:
            text = line.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
            line = terminal.safe(text).encode()
        stamp = b""
        if self._timestamps:
            at = self._begun_at.get(stream)
            stamp = f"{'-' if at is None else _time(at)} ".encode()
        self._out.write(self._prefix + stamp + line)


class Copying:
    """Passes the output of a command through to our own stdout and stderr, beside its job's end.

    ``complete``: everything that the command has written, as far as it was kept, was passed on.
    """

    def __init__(
        self, chunks: AsyncGenerator[LogChunk, None], outs: dict[str, BinaryIO] | None = None
    ) -> None:
        self.complete = False
        self._outs = outs or {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
        self._writers = {
            name: Lines(out, "", timestamps=False, raw=False) for name, out in self._outs.items()
        }
        self._tails = dict.fromkeys(self._outs, b"")
        self._taken = 0
        self._writing = False
        self._task = asyncio.create_task(self._copy(chunks))

    def cancel(self) -> None:
        self._task.cancel()

    async def until_ended(self, ending: Coroutine[Any, Any, T]) -> T:
        """What ``ending`` returns, once the output has been written too, however slow its reader is.

        Raises BrokenPipeError or Unwritable as soon as it cannot be written. Where nothing comes from
        the server for OUTPUT_WAIT_S after the end, that is said, and it is not ``complete``.
        """
        ended = asyncio.ensure_future(ending)
        try:
            await asyncio.wait([ended, self._task], return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
            answer = await ended
            await self._rest()
            return answer
        finally:
            ended.cancel()

    async def _rest(self) -> None:
        while not self._task.done():
            before = self._taken
            await asyncio.wait([self._task], timeout=OUTPUT_WAIT_S)
            if not (self._task.done() or self._writing) and self._taken == before:
                terminal.say(f"error: the end of its output did not come within {OUTPUT_WAIT_S:g} s.")
                return
        self._task.result()

    async def _copy(self, chunks: AsyncGenerator[LogChunk, None]) -> None:
        from towline.errors import TowlineError

        notes: list[str] = []
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    self._taken += 1
                    if chunk.note is not None:
                        notes.append(chunk.note)
                    await self._pass_on(chunk)
            self.complete = not notes
        except TowlineError as error:
            terminal.say(terminal.safe(f"error: its output cannot be had: {error}"))
        except (BrokenPipeError, Unwritable):
            raise
        except OSError as error:  # of stderr
            raise Unwritable(error.errno, error.strerror) from None
        for writer in self._writers.values():
            writer.end()
        for note in notes:
            terminal.say(terminal.safe(f"warning: {note}"))
        self._tell_dropped()

    async def _pass_on(self, chunk: LogChunk) -> None:
        tail = self._tails[chunk.stream] + chunk.data[-_DROPPED_BYTES:]
        self._tails[chunk.stream] = tail[-_DROPPED_BYTES:]
        for start in range(0, len(chunk.data), _PIPE_BUF_BYTES):
            # A slow reader must not keep us from hearing Ctrl-C and the job's end.
            self._writing = True
            await writable(self._outs[chunk.stream].fileno())
            self._writing = False
            part = chunk.data[start : start + _PIPE_BUF_BYTES]
            self._writers[chunk.stream].take(_part(chunk, start, part))

    def _tell_dropped(self) -> None:
        """The note in the output itself is not seen where that goes into a file."""
        for tail in self._tails.values():
            for count, stream, why in _DROPPED.findall(tail):
                reason = terminal.safe(why.decode(errors="replace"))
                remedy = "; a larger logs.max_bytes keeps more" if "logs.max_bytes" in reason else ""
                terminal.say(
                    f"warning: {count.decode()} bytes of {stream.decode()} were dropped: {reason}{remedy}."
                )


def _part(chunk: LogChunk, start: int, data: bytes) -> LogChunk:
    from towline.client import LogChunk

    return LogChunk(stream=chunk.stream, at=chunk.at, offset=chunk.offset + start, data=data)
