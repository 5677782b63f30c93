"""Whether artifacts move between this node and its server, and what of the agent does it.

On one machine they stay where they are, and nothing here costs anything. The server says at its welcome which
of the two it is; a file remembers it for the time before that, when attempts may have ended already.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from towline.agent.artifacts import Artifacts
from towline.agent.executor import Executor
from towline.core.agent.eviction import Pins
from towline.core.commands import attempt_key
from towline.model.states import ATTEMPT_ENDED

if TYPE_CHECKING:
    import httpx2

    from towline.agent.moving.inputs import Inputs
    from towline.agent.moving.talking import Talking

MOVED = "moved"
SHARE = 10
"""Copies take at most one part in so many of the disk, where nothing else is said."""


class Moves:
    """``connect`` makes an HTTP client of the server. ``member``: this machine joined a cluster."""

    def __init__(
        self,
        root: Path,
        artifacts: Artifacts,
        executor: Executor,
        connect: Callable[[], httpx2.Client],
        *,
        boot_id: str,
        most_bytes: int | None,
        member: bool,
    ) -> None:
        self._marker = root / MOVED
        self._root = root
        self._artifacts = artifacts
        self._executor = executor
        self._connect = connect
        self._talking: Talking | None = None
        self._boot_id = boot_id
        self._most_bytes = most_bytes
        self._inputs: Inputs | None = None
        if member or self._marker.exists():
            self._begin()

    def welcomed(self, takes: bool) -> None:
        """A server has welcomed the node, and has artifacts brought to it or not."""
        executor = self._executor
        if takes and executor.uploads is None:
            self._begin()
            with contextlib.suppress(OSError):
                self._marker.touch()
        executor.inputs = self._inputs if takes else None
        if executor.uploads is None:
            return
        executor.uploads.welcomed(takes)
        if not takes:
            executor.uploads = None
            self._marker.unlink(missing_ok=True)

    def close(self) -> None:
        if self._talking is not None:
            self._talking.close()
        if self._executor.uploads is not None:
            self._executor.uploads.close()
        if self._inputs is not None:
            self._inputs.close()

    def _begin(self) -> None:
        from towline.agent.moving.copies import Copies
        from towline.agent.moving.inputs import Inputs
        from towline.agent.moving.talking import Talking
        from towline.agent.moving.uploads import Uploads

        self._talking = self._talking or Talking(self._connect)
        self._root.mkdir(mode=0o755, exist_ok=True)
        most_bytes = self._most_bytes or shutil.disk_usage(self._root).total // SHARE
        copies = Copies(self._root, self._artifacts, self._boot_id, most_bytes)
        copies.sweep()
        executor = self._executor
        executor.uploads = Uploads(self._artifacts, copies, self._talking, executor.released)
        self._inputs = self._inputs or Inputs(self._artifacts, copies, self._talking, self._pins)

    def _pins(self) -> Pins:
        """Of an attempt that ran before this agent did, the inputs are not known: all of its job stays."""
        tasks: set[tuple[str, int]] = set()
        jobs: set[str] = set()
        for update, _ in self._executor.machine.attempts():
            if update.state in ATTEMPT_ENDED:
                continue
            try:
                job, task, _, _ = attempt_key(update.attempt)
            except ValueError:
                continue
            template = self._executor.templates.get(job, task)
            if template is None:
                jobs.add(job)
            else:
                tasks.update((job, template.input_tasks[need][0]) for need in template.spec.inputs)
        return Pins(tasks, jobs)
