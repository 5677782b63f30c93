"""Whether the node's disk has room for more work. Where it has none, the node says so of all its runtimes:
what it has goes on, and nothing new is placed on it until there is room again."""

from __future__ import annotations

import os
from pathlib import Path

LOW_BYTES, ENOUGH_BYTES = 4 * 1024**2, 8 * 1024**2
LOW_INODES, ENOUGH_INODES = 20, 100


class Room:
    """``problem`` is a sentence for people; None: there is room."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problem: str | None = None

    def look(self) -> bool:
        """Whether ``problem`` has changed since the last look."""
        try:
            there = os.statvfs(self._folder)
        except OSError:
            return False  # the home is gone, which others find out
        free, inodes = there.f_bavail * there.f_frsize, there.f_favail if there.f_files else ENOUGH_INODES
        before = self.problem
        if free < LOW_BYTES or inodes < LOW_INODES:
            self.problem = f"the node's disk is full: make room in {self._folder}"
        elif free >= ENOUGH_BYTES and inodes >= ENOUGH_INODES:
            self.problem = None
        return self.problem != before

    def limit(self, runtimes: dict[str, str | None]) -> dict[str, str | None]:
        """Each runtime with why it cannot run anything more; see Hello."""
        return {name: problem or self.problem for name, problem in runtimes.items()}
