"""What all commands share: asking the server, telling errors with their exit status, writing safely.

Exit statuses: 0 as wished, 1 it failed, 2 refused input, 3 no server, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from towline.cli.screen.descriptors import Unwritable
from towline.errors import (
    InvalidDocument,
    OperatorError,
    RequestError,
    RetryError,
    TowlineError,
    Unauthenticated,
    WrongSetting,
)

if TYPE_CHECKING:
    from towline.client import Client

OK = 0
FAILED = 1
REFUSED = 2
NO_SERVER = 3
INTERRUPTED = 130
BROKEN_PIPE = 141

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor moves
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS and the like, up to their end
    r"|[ -/]*[0-~])"  # two-character sequences
)


@dataclass(frozen=True)
class Reference:
    """``JOB[/TASK[.INDEX]]`` taken apart."""

    job: str
    task: str | None = None
    index: int | None = None


def reference(text: str) -> Reference:
    """Raises RequestError. A task's name has no dot in it, a job's may have."""
    job, slash, rest = text.partition("/")
    if not slash:
        if not job:
            raise RequestError("JOB is empty: give a job's id, the beginning of one, or its name.")
        return Reference(job)
    task, dot, index = rest.partition(".")
    if not job or not task or "/" in task or (dot and not (index.isascii() and index.isdigit())):
        raise RequestError(f"{safe(text)!r} is not JOB, JOB/TASK or JOB/TASK.INDEX, such as flights/count.3")
    return Reference(job, task, int(index) if dot else None)


def safe(text: str) -> str:
    """Text of others for a terminal: escape sequences removed, other control characters but
    newline and tab shown as ``\\x07``, so that it can neither move the cursor nor hide anything."""
    without = _ESCAPE_SEQUENCE.sub("", text) if "\x1b" in text else text
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), without)


def write(text: str) -> None:
    """A line of the answer: stdout."""
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """A message: stderr. Where that cannot be written there is nobody to tell."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def write_json(document: Any) -> None:
    """One JSON document on stdout: indented for people, on one line for programs."""
    import msgspec

    encoded = msgspec.json.encode(document)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    write(encoded.decode())


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns on stdout, each as wide as its widest cell; a row is a line, whatever is in its cells."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for row in [[name.upper() for name in header], *cells]:
        write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def facts(pairs: Sequence[tuple[str, object]]) -> None:
    """``NAME:  VALUE``, a line each, on stdout; what has no value is left out."""
    there = [(f"{name}:", value) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in there), default=0)
    for name, value in there:
        write(f"{name:<{width}} {safe(str(value))}")


def _cell(cell: object) -> str:
    return safe("-" if cell is None else str(cell)).replace("\n", "\\n").replace("\t", "\\t")


def seconds_between(begin: str, end: str | None) -> float:
    """Seconds from one RFC 3339 time to another (None: until now)."""
    until = datetime.now(UTC) if end is None else datetime.fromisoformat(end)
    return max(0.0, (until - datetime.fromisoformat(begin)).total_seconds())


def length(seconds: float) -> str:
    """``0.42 s``, ``12.3 s``, ``3m05s``, ``2h07m``, ``3d04h``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 48 else f"{hours // 24}d{hours % 24:02d}h"


def counted(counts: dict[str, int]) -> str:
    """``12 succeeded, 1 failed``: what there is of each state."""
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nothing"


def ask(work: Callable[[Client], Awaitable[int | None]]) -> NoReturn:
    """Run ``work`` with a client of the local server and end the command with the status it
    returns (None: 0), or with that of the error it raises."""
    end(lambda: served(work))


def served(work: Callable[[Client], Awaitable[int | None]]) -> int | None:
    """Run ``work`` with a client of the local server, which is started if need be."""

    async def connected() -> int | None:
        from towline.client import connect

        async with await connect(waiting=_waits) as client:
            try:
                return await work(client)
            except Unauthenticated:
                from towline.client.cluster.contexts import refused_token

                raise refused_token(os.environ) from None

    return asyncio.run(connected())


def _waits(left_s: float) -> None:
    say(f"The server does not answer. Waiting for it for up to {left_s:.0f} s more (Ctrl-C ends this).")


def end(work: Callable[[], int | None]) -> NoReturn:
    """Run ``work`` and end the command with its status, or with that of the error it raises."""
    try:
        status = _status_of(work)
        sys.stdout.flush()
    except (BrokenPipeError, Unwritable) as error:
        status = unwritten(error)
    raise typer.Exit(status)


def _status_of(work: Callable[[], int | None]) -> int:
    try:
        return work() or OK
    except (KeyboardInterrupt, asyncio.CancelledError):
        return INTERRUPTED
    except TowlineError as error:
        return tell(error)


def unwritten(error: OSError) -> int:
    """Say that the answer could not be written; returns the exit status. Whoever has read it and
    has gone (head, less) knows so already."""
    # What is still in the buffers must not fail once more when the process ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    say(f"error: {error}")
    return FAILED


def tell(error: TowlineError) -> int:
    """Say on stderr what is wrong, one problem a line; returns the exit status."""
    if isinstance(error, InvalidDocument):
        for problem in error.problems:
            at = error.source + (f":{problem.line}" if problem.line is not None else "")
            where = f"{problem.where}: " if problem.where else ""
            remedy = f" ({problem.remedy})" if problem.remedy else ""
            say(safe(f"{at or 'error'}: {where}{problem.message}{remedy}"))
        return REFUSED
    say("\n".join(safe(line) for line in f"error: {error}".splitlines()))
    if isinstance(error, RequestError | WrongSetting):
        return REFUSED
    return NO_SERVER if isinstance(error, RetryError) and not isinstance(error, OperatorError) else FAILED
