"""The node's further commands: opened, heard and closed by what comes down the link.

They belong to the link: when it closes, or their client's connection to the server does, they are killed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from towline.agent import control
from towline.agent.exec.inside import Inside
from towline.agent.exec.local import LocalInside
from towline.agent.exec.session import FromSession, Session
from towline.errors import NodeError
from towline.runtime.exec.marks import kill_marked, node_mark
from towline.runtime.policy import Policy, exec_refusal
from towline.runtime.port import CannotExec, Enterable, Wish
from towline.wire.exec import ExecClose, ExecOpen, ExecSaid, ExecSay, Open, Refused

FOLDER = "exec"
MAX_OPEN = 100
"""So many at the same time on one node; each costs some processes and descriptors."""


class Supervisor(Protocol):
    async def describe(self, attempt: str) -> control.Described: ...


class Engines(Protocol):
    """The agent's docker side."""

    async def runs(self, attempt: str) -> bool: ...

    def inside(self, attempt: str, wish: Wish) -> Inside | None:
        """None where the attempt is none of an Engine's."""
        ...


class NodeExec:
    """``say`` of ``hear`` is the link's, for what may wait."""

    def __init__(
        self,
        node_dir: Path,
        supervisor: Supervisor,
        engines: Engines,
        policy: Policy,
        runtimes: Mapping[str, Enterable],
    ) -> None:
        self._folder = node_dir / FOLDER
        self._mark = node_mark(os.fspath(node_dir))
        self._supervisor = supervisor
        self._engines = engines
        self._policy = policy
        self._runtimes = runtimes
        self._sessions: dict[int, Session] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger("agent.exec")

    def sweep(self) -> None:
        """End what an earlier agent has left. Blocks some milliseconds."""
        kill_marked(self._mark)
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- what the link says -------------------------------------------------------------------------
    def hear(
        self, message: ExecOpen | ExecSay | ExecClose, say: Callable[[ExecSaid], None]
    ) -> None:  # fmt: skip
        if isinstance(message, ExecOpen):
            self._open(message, say)
        elif isinstance(message, ExecClose):
            self._end(message.exec)
        elif (session := self._sessions.get(message.exec)) is not None:
            try:
                session.hear(message.said)
            except ValueError as error:
                self._end(message.exec)
                refused = Refused(kind="request", message=f"The client broke the protocol: {error}.")
                say(ExecSaid(exec=message.exec, said=refused))

    def _open(self, order: ExecOpen, say: Callable[[ExecSaid], None]) -> None:
        def tell(said: FromSession) -> None:
            say(ExecSaid(exec=order.exec, said=said))

        refusal = exec_refusal(order.open.user, self._policy)
        if refusal is not None:
            tell(Refused(kind="request", message=f"{refusal}."))
        elif len(self._tasks) >= MAX_OPEN:
            message = f"{MAX_OPEN} commands run inside attempts of this node already: wait for one to end."
            tell(Refused(kind="unavailable", message=message))
        else:
            task = asyncio.get_running_loop().create_task(self._run(order, tell))
            self._tasks[order.exec] = task
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _end(self, name: int) -> None:
        self._sessions.pop(name, None)
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()

    def link_closed(self) -> None:
        for name in list(self._tasks):
            self._end(name)

    def attempts_ended(self, attempts: Iterable[str]) -> None:
        if self._sessions:
            over = set(attempts)
            for session in self._sessions.values():
                if session.attempt in over:
                    session.attempt_ended()

    async def close(self) -> None:
        self.link_closed()
        await asyncio.gather(*self._closing, return_exceptions=True)

    # --- one of them --------------------------------------------------------------------------------
    async def _run(self, order: ExecOpen, tell: Callable[[FromSession], None]) -> None:
        try:
            session = await self._session(order, tell)
            self._sessions[order.exec] = session
            self._log.info("exec", attempt=order.attempt, program=order.open.argv[0])
            await session.run()
        except NodeError as error:
            tell(Refused(kind="unavailable", message=f"{error}: repeat it."))
        except CannotExec as error:
            tell(Refused(kind="request", message=str(error)))
        except Exception as error:
            self._log.exception("exec failed", attempt=order.attempt)
            tell(Refused(kind="failed", message=f"Towline met an error of its own: {error!r}"))
        finally:
            if self._tasks.get(order.exec) is asyncio.current_task():
                del self._tasks[order.exec]
                self._sessions.pop(order.exec, None)

    async def _session(self, order: ExecOpen, tell: Callable[[FromSession], None]) -> Session:
        wanted = order.open
        wish = _wish(wanted, f"{self._mark}{secrets.token_hex(8)}")
        inside = self._engines.inside(order.attempt, wish)
        if inside is not None:
            return Session(order.attempt, inside, tell, partial(self._engines.runs, order.attempt))
        found = await self._supervisor.describe(order.attempt)
        if found.plan is None:
            raise CannotExec("The attempt does not run (any more).")
        runtime = self._runtimes.get(found.plan.runtime)
        if runtime is None:
            raise CannotExec(f"Attempts of the runtime {found.plan.runtime} cannot be entered.")
        self._folder.mkdir(mode=0o700, exist_ok=True)
        inside = LocalInside(runtime, found.plan, found.pid, wish, self._folder)
        return Session(order.attempt, inside, tell, partial(self._runs, order.attempt))

    async def _runs(self, attempt: str) -> bool:
        try:
            return (await self._supervisor.describe(attempt)).plan is not None
        except NodeError:
            return True  # nobody knows


def _wish(wanted: Open, mark: str) -> Wish:
    return Wish(
        argv=wanted.argv,
        mark=mark,
        env=wanted.env,
        user=wanted.user,
        workdir=wanted.workdir,
        terminal=wanted.terminal,
    )
