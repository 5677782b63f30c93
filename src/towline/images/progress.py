"""How far a pull has come: what of its layers was missing, and what of that is here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from towline.images.failures import ImageFailed
from towline.model.pulls import ASKING, PULLING, UNPACKING

__all__ = ["ASKING", "PULLING", "UNPACKING", "Progress"]

_WORDS = {ASKING: "asking the registry"}


class Progress:
    """One pull under way. ``total_bytes`` is None until it is known, or where it cannot be; ``digest`` is
    what is pulled, where that is known; ``arrived`` says how much is here. ``begun_s`` is monotonic."""

    def __init__(self, name: str, digest: str | None = None, step: str = PULLING) -> None:
        self.name = name
        self.digest = digest
        self.steps: list[tuple[int, str]] = []
        """(unix ms, step), in their order; the last one is the present one."""
        self.enter(step)
        self.arrived: Callable[[], int] = lambda: 0
        self.total_bytes: int | None = None
        self.begun_s = time.monotonic()

    @property
    def step(self) -> str:
        return self.steps[-1][1]

    def enter(self, step: str) -> None:
        if self.steps and self.steps[-1][1] == step:
            return
        self.steps.append((time.time_ns() // 1_000_000, step))

    def tried(self) -> tuple[tuple[int, str], ...]:
        """(unix ms, what was begun then), for people."""
        what = self.name if self.digest is None else f"{self.name} ({self.digest})"
        return tuple((at_ms, f"{_WORDS.get(step, step)}: {what}") for at_ms, step in self.steps)

    def expect(self, sizes: Mapping[str, int], blobs: Path) -> None:
        """The layers, by digest, that are all there is to come but for those in ``blobs``. A layer lies
        there as soon as it is whole; before that, it is in what ``arrived`` has counted so far."""
        under_way = self.arrived
        missing = {digest: size for digest, size in sizes.items() if not _is_there(blobs, digest)}
        self.total_bytes = sum(missing.values())

        def arrived() -> int:
            whole = sum(size for digest, size in missing.items() if _is_there(blobs, digest))
            return min(whole + under_way(), sum(missing.values()))

        self.arrived = arrived

    def __str__(self) -> str:
        done = self.arrived() / 1024**2
        if self.step != PULLING:
            return _WORDS.get(self.step, self.step)
        if self.total_bytes is None:
            return f"pulling: {done:.1f} MiB"
        return f"pulling: {done:.1f} of {self.total_bytes / 1024**2:.1f} MiB"


@contextmanager
def shown(pulls: dict[str, Progress], progress: Progress) -> Generator[Progress, None, None]:
    """Those who look at ``pulls`` see it while it is under way; a failure tells what was tried."""
    pulls[progress.name] = progress
    try:
        yield progress
    except ImageFailed as error:
        error.tried = (*error.tried, *progress.tried())
        raise
    finally:
        if pulls.get(progress.name) is progress:
            del pulls[progress.name]


def _is_there(blobs: Path, digest: str) -> bool:
    with suppress(OSError, ValueError):
        return os.path.exists(blobs / digest.replace(":", "/"))  # noqa: PTH110 - texts, and there are many
    return False
