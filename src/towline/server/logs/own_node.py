"""What this machine's own node keeps of jobs: on one machine nothing is shipped, so the server takes it away
together with the job."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path


class OwnNode:
    """``node_dir`` is the node's folder in the server's home. Methods block."""

    def __init__(self, node_dir: Path) -> None:
        self._output = node_dir / "output"
        self._artifacts = node_dir / "artifacts"

    def size_of(self, jobs: Sequence[str]) -> int:
        """Bytes that ``drop`` would free."""
        return sum(_size(folder) for folder in self._folders(jobs))

    def drop(self, jobs: Sequence[str]) -> int:
        """Remove output and artifacts of jobs that have ended; returns the bytes freed."""
        freed = 0
        for folder in self._folders(jobs):
            size = _size(folder)
            shutil.rmtree(folder, ignore_errors=True)
            freed += size - (_size(folder) if folder.exists() else 0)
        return freed

    def _folders(self, jobs: Sequence[str]) -> Iterator[Path]:
        wanted = set(jobs)
        if self._output.is_dir():
            for name in os.listdir(self._output):  # noqa: PTH208
                if name.rsplit("-", 3)[0] in wanted:
                    yield self._output / name
        for job in wanted:
            if (self._artifacts / job).is_dir():
                yield self._artifacts / job


def _size(folder: Path) -> int:
    total = 0
    for top, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(top, name)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total
