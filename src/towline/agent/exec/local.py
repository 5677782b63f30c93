"""A command as a child of the agent: the command itself for ``process``, the engine's ``exec`` for ``oci``.

The child is spawned by ``runtime/exec/launcher.py``, and dies with the agent. Its terminal is made here, or
by the engine, which sends it through a socket.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from towline.agent.exec.descriptors import Sink, Source, set_size
from towline.agent.exec.inside import Ended, Send
from towline.runtime.exec import launcher
from towline.runtime.exec.marks import kill_marked
from towline.runtime.port import CannotExec, Enterable, Entry, Plan, Wish
from towline.runtime.spawning import why_not
from towline.wire.exec import STDERR, STDOUT

_LOOK_S = 0.005


class LocalInside:
    """See ``Inside``."""

    def __init__(
        self,
        runtime: Enterable,
        plan: Plan,
        pid: int,
        wish: Wish,
        parent: Path,
    ) -> None:
        self._runtime = runtime
        self._plan = plan
        self._pid = pid
        self._wish = wish
        self._folder = tempfile.mkdtemp(dir=parent)
        self._process: asyncio.subprocess.Process | None = None
        self._pidfd = -1
        self._group = 0
        self._terminal = -1
        self._input: Sink | None = None
        self._outputs: dict[int, Source] = {}

    # --- start ------------------------------------------------------------------------------------
    async def start(self) -> None:
        entry = await asyncio.to_thread(
            self._runtime.entry, self._plan, self._pid, self._wish, self._folder
        )  # fmt: skip
        console = None if entry.console is None else _Console(entry.directory, entry.console)
        theirs: list[int] = []
        try:
            theirs = self._make_streams(console is not None)
            process = await self._spawn(entry, theirs)
        finally:
            for fd in set(theirs):
                os.close(fd)
        try:
            if entry.is_command:
                self._watch(process.pid)
            else:
                await self._await_engine(entry, process, console)
        finally:
            if console is not None:
                console.close()

    def _make_streams(self, console: bool) -> list[int]:
        """Our ends are kept; returns what the child gets as 0, 1 and 2."""
        if console:
            return [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)] * 3
        if self._wish.terminal is not None:
            ours, theirs = os.openpty()
            self._take_terminal(ours)
            return [theirs] * 3
        stdin, ours = os.pipe2(os.O_CLOEXEC)
        self._input = Sink(ours)
        theirs = [stdin]
        for stream in (STDOUT, STDERR):
            ours, end = os.pipe2(os.O_CLOEXEC)
            self._outputs[stream] = Source(ours)
            theirs.append(end)
        return theirs

    def _take_terminal(self, fd: int) -> None:
        self._terminal = fd
        if self._wish.terminal is not None:
            set_size(fd, *self._wish.terminal)
        self._outputs[STDOUT] = Source(os.dup(fd))
        self._input = Sink(os.dup(fd), terminal=True)

    async def _spawn(self, entry: Entry, streams: list[int]) -> asyncio.subprocess.Process:
        """The child has become the program when this returns. Raises CannotExec."""
        spec = {
            "parent": os.getpid(), "terminal": os.isatty(streams[0]), "directory": entry.directory,
            "program": entry.program, "argv": list(entry.argv), "env": entry.env,
            "space_of": entry.space_of, "hidden": entry.hidden,
        }  # fmt: skip
        status, theirs = os.pipe2(os.O_CLOEXEC)
        told = Source(status)
        said = os.memfd_create("exec")
        try:
            os.write(said, json.dumps(spec).encode())
            os.lseek(said, 0, os.SEEK_SET)
            # Kept at once: it has to be ended also where we are cancelled while it starts.
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", launcher.__file__, str(said), str(theirs),
                stdin=streams[0], stdout=streams[1], stderr=streams[2],
                pass_fds=(said, theirs), start_new_session=True, env={}, cwd="/",
            )  # fmt: skip
        except BaseException:
            told.close()
            raise
        finally:
            os.close(said)
            os.close(theirs)
        try:
            problem = (await told.read()).decode()
        finally:
            told.close()
        if problem:
            await process.wait()
            raise _why_not_spawned(entry, *problem.split())
        return process

    async def _await_engine(
        self, entry: Entry, process: asyncio.subprocess.Process, console: _Console | None
    ) -> None:
        """Until the engine has the command running. Raises CannotExec."""
        ended = asyncio.ensure_future(process.wait())
        file = Path(entry.directory, "pid")
        while not (pid := _pid_in(file)):
            if ended.done():
                pid = _pid_in(file)
                if pid:
                    break
                raise await asyncio.to_thread(entry.why, ended.result())
            await asyncio.wait([ended], timeout=_LOOK_S)
        if console is not None:
            self._take_terminal(await console.receive())
        self._watch(pid)

    def _watch(self, pid: int) -> None:
        """What signals go to: none where it has ended already, its group unless the engine is in that."""
        assert self._process is not None
        with suppress(OSError):
            self._pidfd = os.pidfd_open(pid)
            group = os.getpgid(pid)
            self._group = group if pid == self._process.pid or group != self._process.pid else 0

    # --- while it runs ----------------------------------------------------------------------------
    async def copy_out(self, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            for stream, source in self._outputs.items():
                group.create_task(_copy(source, stream, send))

    async def write(self, data: bytes) -> None:
        assert self._input is not None
        await self._input.write(data)

    async def end_input(self) -> None:
        assert self._input is not None
        with suppress(BrokenPipeError):
            await self._input.end()

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal >= 0:
            with suppress(OSError):
                set_size(self._terminal, rows, columns)

    def signal(self, number: int) -> None:
        if self._pidfd < 0:
            return
        with suppress(OSError):
            signal.pidfd_send_signal(self._pidfd, 0)  # it is there, so its group's number is still its own
            if self._group:
                os.killpg(self._group, number)
            else:
                signal.pidfd_send_signal(self._pidfd, number)

    async def wait(self) -> Ended:
        assert self._process is not None
        status = await self._process.wait()
        await self._kill_marked()
        for source in self._outputs.values():
            source.finish()
        return Ended(code=status) if status >= 0 else Ended(signal=-status)

    async def kill(self) -> None:
        await self._kill_marked()
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _kill_marked(self) -> None:
        await asyncio.to_thread(kill_marked, self._wish.mark)

    async def close(self) -> None:
        try:
            if self._process is not None:
                await self.kill()
                await self._process.wait()
        finally:
            for source in self._outputs.values():
                source.close()
            if self._input is not None:
                self._input.close()
            for fd in (self._terminal, self._pidfd):
                if fd >= 0:
                    os.close(fd)
            self._terminal = self._pidfd = -1
            shutil.rmtree(self._folder, ignore_errors=True)


class _Console:
    """A socket on which the engine sends the terminal that it has made."""

    def __init__(self, directory: str, name: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        folder = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        try:  # by way of the descriptor: the whole path may be longer than a socket's name may be
            self._listener.bind(f"/proc/self/fd/{folder}/{name}")
        finally:
            os.close(folder)
        self._listener.listen(1)

    async def receive(self) -> int:
        """The engine has connected and sent by now. Raises CannotExec where it has not."""
        try:
            connection, _ = self._listener.accept()
            with connection:
                _, descriptors, _, _ = socket.recv_fds(connection, 1024, 1)
        except OSError as error:
            raise CannotExec(f"The engine sent no terminal: {error.strerror}.") from error
        if not descriptors:
            raise CannotExec("The engine sent no terminal.")
        os.set_inheritable(descriptors[0], False)
        return descriptors[0]

    def close(self) -> None:
        self._listener.close()


async def _copy(source: Source, stream: int, send: Send) -> None:
    while data := await source.read():
        await send(stream, data)


def _pid_in(file: Path) -> int:
    try:
        return int(file.read_text() or 0)
    except (OSError, ValueError):
        return 0


def _why_not_spawned(entry: Entry, step: str, number: str) -> CannotExec:
    error = OSError(int(number), os.strerror(int(number)))
    if step == "space":
        return CannotExec(f"The container's user namespace cannot be entered: {error.strerror}.")
    if step == "directory":
        return CannotExec(f"The working directory {entry.directory!r} cannot be entered: {error.strerror}.")
    program = os.path.normpath(os.path.join(entry.directory, entry.program))
    absent = error.errno == errno.ENOENT and not os.path.exists(program)
    return CannotExec(f"{why_not(program, error)}.", 127 if absent else 126)
