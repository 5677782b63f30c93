"""The user's terminal while a command inside has it: every key goes there, and it is always given back."""

from __future__ import annotations

import os
import termios
import tty
from contextlib import suppress
from typing import Any, Self

_USUAL_SIZE = (24, 80)


def size() -> tuple[int, int]:
    """(rows, columns) of the terminal that we write to, else that we read from; a usual one without."""
    for fd in (1, 0, 2):
        with suppress(OSError):
            found = os.get_terminal_size(fd)
            if found.lines and found.columns:
                return found.lines, found.columns
    return _USUAL_SIZE


class RawTerminal:
    """``fd`` in raw mode within ``with``; nothing is done to what is no terminal."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None

    def __enter__(self) -> Self:
        if os.isatty(self._fd):
            with suppress(termios.error):  # it has been hung up
                self._saved = termios.tcgetattr(self._fd)
                self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def take(self) -> None:
        if self._saved is not None:
            with suppress(termios.error):
                tty.setraw(self._fd, termios.TCSANOW)

    def give_back(self) -> None:
        """As it was before."""
        if self._saved is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
