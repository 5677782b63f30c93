"""The processes of a cluster on this machine: started, watched, and started again where they end."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from towline.cli.dev.network import entered
from towline.errors import OperatorError, Unavailable

PAUSE_S = 1.0
QUICK_S = 10.0
QUICK_DEATHS = 3
_LOG_LINES = 15
_NOT_INHERITED = (
    "TOWLINE_HOME", "TOWLINE_SERVER", "TOWLINE_TOKEN", "TOWLINE_CA", "TOWLINE_CONTEXT", "TOWLINE_JOIN",
    "TOWLINE_LISTEN", "TOWLINE_ADDRESS", "TOWLINE_NODE_NAME",
)  # fmt: skip
"""Of the user's own work with another cluster, and what we say ourselves."""

Tell = Callable[[str], None]


class Process:
    """``python -m towline.launch ROLE --home HOME``, in a session of its own so that Ctrl-C reaches it only
    through us, and in a network namespace where one is given. Its output goes to ``log``."""

    def __init__(self, name: str, role: str, home: Path, space: str | None, environ: dict[str, str]) -> None:
        self.name = name
        self.log = home.parent / f"{home.name}.log"
        self._argv = [*entered(space), sys.executable, "-P", "-m", "towline.launch", role]
        self._argv += ["--home", os.fspath(home)]
        inherited = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
        self._environ = {**inherited, **environ}
        self._arguments: list[str] = []
        self._running: asyncio.subprocess.Process | None = None

    async def start(self, arguments: Sequence[str] = (), first: Sequence[str] = (), fd: int = -1) -> None:
        """``first`` are arguments of this start alone, ``fd`` a descriptor that it inherits."""
        self._arguments = [*arguments] or self._arguments
        with self.log.open("ab") as log:
            self._running = await asyncio.create_subprocess_exec(
                *self._argv, *self._arguments, *first,
                env=self._environ, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, pass_fds=(fd,) if fd >= 0 else (),
            )  # fmt: skip

    def check(self) -> None:
        """Raises Unavailable, with the end of its log, where it has ended."""
        if self._running is not None and self._running.returncode is not None:
            raise Unavailable(f"{self.name} has ended ({self._status()}).\n{self._log_end()}")

    async def keep(self, tell: Tell) -> None:
        """Start it again whenever it ends. Raises OperatorError where that happens again and again."""
        deaths = 0
        while True:
            assert self._running is not None
            began = time.monotonic()
            await self._running.wait()
            deaths = deaths + 1 if time.monotonic() - began < QUICK_S else 1
            if deaths >= QUICK_DEATHS:
                raise OperatorError(
                    f"{self.name} ends again and again ({self._status()}).\n{self._log_end()}"
                )
            tell(f"{self.name} has ended ({self._status()}), and is started again.")
            await asyncio.sleep(PAUSE_S)
            await self.start()

    def _status(self) -> str:
        code = None if self._running is None else self._running.returncode
        return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"

    def _log_end(self) -> str:
        try:
            last = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        except OSError as error:
            return f"Its log {self.log} cannot be read: {error.strerror}."
        return "\n".join([f"The last lines of {self.log}:", *(f"  {line}" for line in last)])
