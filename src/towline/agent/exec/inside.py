"""What a session needs of whatever runs a command inside an attempt."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

Send = Callable[[int, bytes], Awaitable[None]]
"""Takes the stream (1 or 2) and some of its bytes; returns when more may be read."""


class Ended(NamedTuple):
    """An exit code, or the signal that it died of."""

    code: int | None = None
    signal: int | None = None

    @property
    def killed(self) -> bool:
        return self.signal == 9 or self.code == 137


class Broken(Exception):
    """The way to the command broke. It may be running or not; ``close`` ends it."""


class Inside(Protocol):
    """One command. ``close`` is called in any case, whatever was called before."""

    async def start(self) -> None:
        """Until it runs. Raises CannotExec where it does not, Broken."""
        ...

    async def copy_out(self, send: Send) -> None:
        """All that it writes, in order within a stream; until it and all that it started has ended. Raises
        Broken."""
        ...

    async def write(self, data: bytes) -> None:
        """To its stdin, until that has taken it. Raises BrokenPipeError where nobody reads it any more."""
        ...

    async def end_input(self) -> None: ...

    def resize(self, rows: int, columns: int) -> None: ...

    def signal(self, number: int) -> None:
        """To the command and its process group; no error where it has ended."""
        ...

    async def wait(self) -> Ended:
        """Its end, after which what it left behind is ended too. Raises Broken."""
        ...

    async def kill(self) -> None:
        """Kill it and all that it has started. ``wait`` tells of its end."""
        ...

    async def close(self) -> None:
        """Kill what still runs of it, and give back all that was taken."""
        ...
