"""The log of attempts that never started: what the node tried, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from towline.logs.entries import STREAMS
from towline.logs.writer import Writer

MOST_ATTEMPTS = 100
"""Of one failure: the attempts that share it after these have its message in their record."""


def tell_never_started(output_dir: Path, attempts: Sequence[str], lines: Sequence[tuple[int, str]]) -> None:
    """Write (unix ms, what was done) as notes into the stderr of each attempt, unless there is something."""
    for attempt in attempts[:MOST_ATTEMPTS]:
        folder = output_dir / attempt
        if folder.exists():
            continue
        with suppress(OSError):  # the record has what went wrong
            writer = Writer(str(folder), 0)
            for at_ms, text in lines:
                writer.note(STREAMS.index("stderr"), " ".join(text.split()), at_ms)
            writer.close()
