"""The keeper: parent of the supervisor, and of every orphan that a dead supervisor leaves.

``python -m towline.agent.keeper NODE_DIR``. It does so little that it need not die: it holds the
descriptors that a supervisor gives it, writes each orphan's exit to a file before it reaps it, and
starts the next supervisor, which gets the descriptors back. One runs per node directory, under a
lock whose descriptor the supervisor inherits. If the keeper itself is killed, the supervisor
executes this program in its own place, with ``--bequest FD`` for what it held.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import time

from towline.agent.supervision import handover, kernel
from towline.agent.supervision.handover import EXITS, LOCK, Orphan
from towline.agent.supervision.leasing.cutting import Cutting
from towline.errors import NodeError

_READY_TIMEOUT_S = 15.0
_SHORT_LIFE_S = 1.0
_RECORD_AGAIN_S = 0.5
_LONGEST_PAUSE_S = 5.0
_FLOCK = struct.Struct("hhqqi4x")
_WHOLE_FILE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class Keeper:
    """``descriptors`` are held by name for whichever supervisor lives; ``ready`` is told of the first."""

    def __init__(self, node_dir: str, lock: int, descriptors: dict[str, int], ready: int | None) -> None:
        self.node_dir = node_dir
        self.lock = lock
        self.held = descriptors
        self.ready = ready
        self.supervisor = 0
        self.sock: socket.socket | None = None
        self.quitting = False
        self.unrecorded = False
        self.started_s = 0.0
        self.pause_s = 0.0
        self.cutting = Cutting(node_dir)
        self.exits = os.open(
            f"{node_dir}/{EXITS}", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        handover.take_ahead(self.exits)

    def run(self) -> None:
        """Until the supervisor asks for the end."""
        wake, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        kernel.become_subreaper()
        while True:
            self._reap()
            self.cutting.look(self.supervisor)
            if self.supervisor == 0:
                if self.quitting:
                    return
                if os.fstat(self.exits).st_nlink == 0:  # the node's folder was removed: no supervisor starts
                    self._kill_children()
                    return
                if not os.path.exists(self.node_dir) and not kernel.children():
                    return  # it was moved away, or its disk was, and nothing runs
                self._start()
            waited = [wake] if self.sock is None else [wake, self.sock.fileno()]
            patience_s = _RECORD_AGAIN_S if self.unrecorded else self.cutting.patience_s
            readable, _, _ = select.select(waited, [], [], patience_s)
            if wake in readable:
                os.read(wake, 4096)
            if self.sock is not None and self.sock.fileno() in readable:
                self._listen(self.sock)

    def _kill_children(self) -> None:
        """What the supervisor left, of which nothing is on record any more."""
        for pid in kernel.children():
            os.kill(pid, signal.SIGKILL)  # it is our child and not reaped: it is that process still

    def _start(self) -> None:
        self.pause_s = min(_LONGEST_PAUSE_S, self.pause_s * 2 or 0.1)
        if time.monotonic() - self.started_s > _SHORT_LIFE_S:
            self.pause_s = 0.0
        # A supervisor that cannot start is not tried in a tight loop.
        until_s = time.monotonic() + self.pause_s
        while (left_s := until_s - time.monotonic()) > 0:
            self.cutting.look(0)
            select.select([], [], [], min(left_s, self.cutting.patience_s or left_s))
        self.started_s = time.monotonic()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = [theirs.fileno(), self.lock, *([] if self.ready is None else [self.ready])]
        for fd in given:
            os.set_inheritable(fd, True)
        program = [sys.executable, "-P", "-m", "towline.agent.supervisor", self.node_dir, *map(str, given)]
        self.supervisor = os.posix_spawn(sys.executable, program, os.environ)
        os.set_inheritable(self.lock, False)
        theirs.close()
        if self.ready is not None:
            os.close(self.ready)
            self.ready = None
        self.sock = ours
        try:
            handover.send_descriptors(ours, self.held)
            ours.send(b".")
        except OSError:
            return  # it has died already: its SIGCHLD says so

    def _listen(self, sock: socket.socket) -> None:
        try:
            message = handover.receive(sock)
        except OSError:
            message = None
        if message is None:
            sock.close()
            self.sock = None
            return
        sign, names, fds = message
        self.cutting.watching = True  # whatever it says: one ``l`` more may not have found room behind it
        if sign == "+":
            for name, fd in zip(names, fds, strict=True):
                self._forget(name)
                self.held[name] = fd
        elif sign == "-":
            for name in names:
                self._forget(name)
        elif sign == "q":
            self.quitting = True

    def _forget(self, name: str) -> None:
        fd = self.held.pop(name, None)
        if fd is not None:
            os.close(fd)

    def _reap(self) -> None:
        grown = self.unrecorded = False
        while (found := kernel.next_exit()) is not None:
            if found.pid == self.supervisor:
                self._supervisor_ended()
                continue
            try:
                self._record(found)
            except OSError:
                self.unrecorded = True  # such as a full disk: it stays a zombie until it is on record
                if self.supervisor and kernel.has_exited(self.supervisor):  # behind it
                    self._supervisor_ended()
                break
            grown = True
            kernel.reap(found.pid)
        if grown and self.sock is not None:
            try:
                self.sock.send(b"x", socket.MSG_DONTWAIT)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EPIPE, errno.ECONNRESET):
                    raise

    def _supervisor_ended(self) -> None:
        self._drain()
        kernel.reap(self.supervisor)
        self.supervisor = 0

    def _drain(self) -> None:
        """What a dead supervisor gave with its last breath counts."""
        while self.sock is not None:
            self._listen(self.sock)

    def _record(self, found: kernel.Exit) -> None:
        process = kernel.process(found.pid)
        start_ms, session = (process.start_ms, process.session) if process else (0, 0)
        orphan = Orphan(found.pid, start_ms, session, found.status, found.cpu_ms or 0, found.peak_kib or 0)
        handover.append_orphan(self.exits, orphan)
        handover.take_ahead(self.exits)


def main(arguments: list[str]) -> int:
    node_dir = os.path.abspath(arguments[0])  # pathlib takes longer to import than all this
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    held: dict[str, int] = {}
    if "--bequest" in options:
        held, lock = handover.read_bequest(int(options["--bequest"]))
    else:
        if os.fork() > 0:
            os._exit(0)  # the keeper is nobody's child
        _close_all_but(int(options.get("--ready", -1)))
        lock = _take_lock(node_dir)
        if lock is None:
            return 0  # another keeper is there, which is all that was wanted
    os.chdir("/")
    sys.stderr = handover.Messages()
    if "--bequest" not in options:  # else we are in them
        _enter_own_mounts()
    ready = int(options["--ready"]) if "--ready" in options else None
    if ready is not None:
        os.set_inheritable(ready, False)
    Keeper(node_dir, lock, held, ready).run()
    return 0


def _close_all_but(kept: int) -> None:
    """What a shell left open in whoever started us (a pipe to ``head``) is not ours to hold for days."""
    os.closerange(3, max(3, kept))
    os.closerange(max(3, kept + 1), os.sysconf("SC_OPEN_MAX"))


def _take_lock(node_dir: str) -> int | None:
    """A lock of the open file, not of the process: it is held while any copy of its descriptor is open."""
    lock = _open_lock(node_dir)
    try:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def lock_is_free(node_dir: str) -> bool:
    """Asked without taking it, so that a keeper that starts just then gets it."""
    lock = _open_lock(node_dir)
    try:
        answer = fcntl.fcntl(lock, fcntl.F_OFD_GETLK, _WHOLE_FILE)
    finally:
        os.close(lock)
    return _FLOCK.unpack(answer)[0] == fcntl.F_UNLCK


def _open_lock(node_dir: str) -> int:
    return os.open(f"{node_dir}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _enter_own_mounts() -> None:
    """What is mounted for containers, the folders of users among it, is for us and ours alone. crun also
    refuses to run where cgroups are hybrid: there the unified hierarchy is hidden."""
    if os.geteuid() != 0:
        return
    try:
        kernel.enter_mounts_without(kernel.hybrid_mount())
    except OSError as error:
        sys.stderr.write(f"keeper: it stays among the machine's mounts: {error}\n")


def start_keeper(node_dir: str) -> None:
    """Start the node's keeper, in a session of its own, unless one is there; return when its supervisor
    answers. ``node_dir`` exists. Blocks up to 15 s. Raises NodeError if none comes up."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        if lock_is_free(node_dir):
            _spawn_keeper(node_dir, deadline)
        if _answers(node_dir):
            return
        if time.monotonic() > deadline:
            raise NodeError(f"the node's supervisor does not answer: see {node_dir}/keeper.log")
        select.select([], [], [], 0.02)  # one is being started in place of one that died


def _spawn_keeper(node_dir: str, deadline: float) -> None:
    """Returns when its supervisor listens, or when it has ended, since another one had the lock."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_inheritable(writer, True)
    log = os.open(f"{node_dir}/keeper.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    program = [sys.executable, "-P", "-m", "towline.agent.keeper", node_dir, "--ready", str(writer)]
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, log, fd) for fd in (1, 2)]
    starter = os.posix_spawn(sys.executable, program, os.environ, file_actions=actions, setsid=True)
    os.close(writer)
    os.close(log)
    os.waitpid(starter, 0)
    try:
        select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(reader)


def _answers(node_dir: str) -> bool:
    # by way of a descriptor: the whole path may be longer than a socket's name may be
    directory = os.open(node_dir, os.O_PATH | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            return sock.connect_ex(f"/proc/self/fd/{directory}/supervisor.sock") == 0
    finally:
        os.close(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
