"""``tow events export``: the log of what has happened, for ``tow simulate`` and other programs."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import typer

from towline.cli.arguments import AtPool, since_ms
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from towline.client import Client

events = typer.Typer(help="What has happened in a pool.", no_args_is_help=True)

Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="From 7d ago on, or from 2026-01-31T12:00:00Z.")
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a file, not to stdout.")
]
_TOLD_EVERY = 1000


def add(app: typer.Typer) -> None:
    events.command("export")(export)
    app.add_typer(events, name="events")


# A typer with one command only would be that command itself.
@events.callback()
def _group() -> None:
    pass


def export(since: Since = None, output: Output = None, pool: AtPool = None) -> None:
    """Write a pool's event log as lines of JSON: nodes, queues, and every event with its job's needs.

    It is what `tow simulate events` replays. Commands, images, environments and values of arrays are
    left out.

    \b
    Examples:
      tow events export --since 7d -o week.jsonl
      tow events export --pool gpu -o gpu.jsonl
      tow events export | jq 'select(.kind == "job.submitted") | .job'
    """

    async def work(client: Client) -> int:
        begin_ms = 0 if since is None else since_ms(since)
        if output is None:
            await _write(client.export_events(begin_ms, pool), terminal.write)
            return terminal.OK
        with _whole(output) as file:
            count = await _write(client.export_events(begin_ms, pool), lambda line: file.write(line + "\n"))
        terminal.say(f"Wrote {count:,} lines to {output}.")
        return terminal.OK

    terminal.ask(work)


async def _write(events: AsyncIterator[bytes], write: Callable[[str], object]) -> int:
    shown, count = sys.stderr.isatty(), 0
    async for line in events:
        write(line.decode())
        count += 1
        if shown and count % _TOLD_EVERY == 0:
            sys.stderr.write(f"\r\x1b[K{count:,} lines")
            sys.stderr.flush()
    if shown:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()
    return count


@contextmanager
def _whole(output: Path) -> Generator[TextIO]:
    """A file that gets its name when all of it is written. A device or pipe is written into, and stays one.

    Raises RequestError where it cannot be made, OperatorError where it cannot be written to its end."""
    from towline.errors import OperatorError

    special = output.exists() and not output.is_file()
    path = output if special else Path(os.path.realpath(output))  # a symbolic link stays one
    part = path if special else path.with_name(f".{secrets.token_hex(6)}.part")
    file = _opened(part, output, "w" if special else "x")
    try:
        with file:
            yield file
        if not special:
            part.replace(path)
    except OSError as error:
        raise OperatorError(f"--output: {output} cannot be written: {error.strerror or error}.") from None
    finally:
        if not special:
            part.unlink(missing_ok=True)


def _opened(path: Path, output: Path, mode: str) -> TextIO:
    from towline.errors import RequestError

    try:
        return cast("TextIO", path.open(mode, encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"--output: {output} cannot be written: {error.strerror or error}.") from None
