"""stdout and stderr as the commands write to them: any text, closed or full, without a traceback."""

from __future__ import annotations

import asyncio
import io
import os
import select
import sys
from typing import Any


class Unwritable(OSError):
    """stdout does not take what is written to it; not raised for a reader who has gone."""

    def __str__(self) -> str:
        return f"stdout cannot be written: {self.strerror}."


class _Out(io.FileIO):
    """Tells failed writes of stdout from all other errors of the system."""

    def write(self, data: Any, /) -> int | None:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unwritable(error.errno, error.strerror) from None


def prepare() -> None:
    """Make stdout and stderr ready for a command, also where the caller has closed them."""
    _fill_gaps()
    # Output of jobs may hold any text, whatever the locale is.
    given = sys.stdout
    out = io.BufferedWriter(_Out(1, "wb", closefd=False))
    sys.stdout = io.TextIOWrapper(
        out,
        encoding="utf-8" if given is None else given.encoding,
        errors="backslashreplace",
        line_buffering=out.isatty(),
    )
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "wb", closefd=False), write_through=True)
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _fill_gaps() -> None:
    """No socket or file may get the number of a stream that was closed: it would be written into.

    A closed stdin is empty, a closed stdout refuses what is written, a closed stderr swallows it.
    """
    for descriptor, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # the lowest number that is free: this one
            os.set_inheritable(descriptor, True)


async def writable(fd: int) -> None:
    """Wait until a pipe, socket or terminal takes bytes; others always do, or fail at once."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if poll.poll(0):
        return
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(fd)
