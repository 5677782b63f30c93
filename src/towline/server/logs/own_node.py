"""What this machine's own node keeps of jobs: on one machine nothing is shipped, so the server takes it away
together with the job."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Sizes(NamedTuple):
    """Bytes of output, and of what was written under TOW_OUT."""

    output: int
    artifacts: int


class OwnNode:
    """``node_dir`` is the node's folder in the server's home. Methods block."""

    def __init__(self, node_dir: Path) -> None:
        self._output = node_dir / "output"
        self._artifacts = node_dir / "artifacts"

    def size_of(self, jobs: Sequence[str]) -> Sizes:
        """What ``drop`` would free."""
        return Sizes(sum(map(_size, self._outputs(jobs))), sum(map(_size, self._written(jobs))))

    def drop(self, jobs: Sequence[str]) -> Sizes:
        """Remove output and artifacts of jobs that have ended; returns what that has freed."""
        return Sizes(sum(map(_removed, self._outputs(jobs))), sum(map(_removed, self._written(jobs))))

    def _outputs(self, jobs: Sequence[str]) -> list[Path]:
        wanted = set(jobs)
        names = os.listdir(self._output) if self._output.is_dir() else []  # noqa: PTH208 - texts, and there are many
        return [self._output / name for name in names if name.rsplit("-", 3)[0] in wanted]

    def _written(self, jobs: Sequence[str]) -> list[Path]:
        return [folder for job in dict.fromkeys(jobs) if (folder := self._artifacts / job).is_dir()]


def _removed(folder: Path) -> int:
    """Bytes that its removal has freed."""
    size = _size(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return size - _size(folder)


def _size(folder: Path) -> int:
    total = 0
    for top, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(top, name)).st_size  # noqa: PTH118 - texts, and there are many
            except OSError:
                continue
    return total
