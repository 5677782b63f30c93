"""The agent of a local server's own machine: started, and started again when it has died."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from towline.coordination.filelock import FileLease
from towline.errors import OperatorError

CHECK_S = 0.5
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 10.0


class AgentProcess:
    """Starts the agent in a session of its own: it outlives the server, as the containers do.

    Whether one lives is told by its lock, which the kernel frees at its death.
    """

    def __init__(self, home: Path, argv: list[str] | None = None) -> None:
        self._home = home
        self._argv = argv or [
            sys.executable, "-P", "-m", "towline.launch", "agent", "--home", os.fspath(home),
        ]  # fmt: skip
        self._lock = home / "node" / "agent.lock"
        self._process: subprocess.Popen[bytes] | None = None
        self._next_start_s = 0.0
        self._backoff_s = BACKOFF_FIRST_S

    @property
    def alive(self) -> bool:
        if self._process is not None:
            if self._process.poll() is None:
                return True
            self._process = None
        return self._locked()

    def _locked(self) -> bool:
        if not self._lock.exists():
            return False
        probe = FileLease(self._lock)
        if not probe.try_acquire():
            return True
        probe.release()
        return False

    def ensure(self) -> bool:
        """Start an agent unless one lives. True if one was started now."""
        if time.monotonic() < self._next_start_s or self.alive:
            return False
        logs = self._home / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        with (logs / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._next_start_s = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)
        return True

    def is_well(self) -> None:
        """It has opened its link: the next start need not wait."""
        self._backoff_s, self._next_start_s = BACKOFF_FIRST_S, 0.0


class AgentWatch:
    """Looks whether the node is linked, and starts its agent where it is not and none lives."""

    def __init__(self, agent: AgentProcess, changed: asyncio.Event) -> None:
        self._agent = agent
        self._changed = changed
        self._trouble = ""

    async def run(self, linked: Callable[[], int]) -> None:
        """Until cancelled. ``linked()`` is the number of open links of agents."""
        while True:
            self.look(linked())
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._changed.wait()

    def look(self, links: int) -> None:
        if links > 0:
            self._agent.is_well()
            return
        try:
            self._agent.ensure()
        except (OSError, OperatorError) as error:  # such as a full disk: it is tried again
            if str(error) != self._trouble:
                import structlog  # here, since this module is loaded first

                structlog.get_logger("node").warning("the agent is not started", reason=str(error))
            self._trouble = str(error)
