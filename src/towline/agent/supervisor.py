"""The supervisor: starts attempts, moves their output, enforces their time, and knows how they ended.

``python -m towline.agent.supervisor NODE_DIR SOCKET LOCK [READY]``, started by the keeper only, with
the descriptors of its socket to the keeper, of the keeper's lock, and of a pipe to close when it
listens. One thread and one epoll loop; each turn does a bounded piece of everything that is due,
writes the journal, and only then tells the agent.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys

from towline.agent import control
from towline.agent.supervision import escapees, kernel
from towline.agent.supervision.agents import AgentChannel
from towline.agent.supervision.ending import Ending
from towline.agent.supervision.handover import KeeperLink, Messages
from towline.agent.supervision.journal import Journal, Stray
from towline.agent.supervision.pipes import Pipes
from towline.agent.supervision.recovery import Recovery
from towline.agent.supervision.roster import Roster, RuntimeSource
from towline.agent.supervision.starting import Evidence, Starting
from towline.errors import NO_ROOM
from towline.model.states import Reason
from towline.runtime.exec.marks import kill_marked, node_mark
from towline.runtime.port import Runtime
from towline.runtime.process import ProcessRuntime

_STARTS_A_TURN = 8
_EXITS_A_TURN = 64
_LOOK_EVERY_MS = 2000


class Supervisor:
    """The parts, and the loop that gives each its turn."""

    def __init__(self, node_dir: str, keeper: KeeperLink, runtimes: RuntimeSource) -> None:
        self.epoll = select.epoll()
        self.keeper = keeper
        self.roster = Roster(node_dir, Journal(f"{node_dir}/journal"), runtimes)
        self.roster.leases.announce = keeper.announce_lease
        self.pipes = Pipes(self.epoll, keeper)
        self.ending = Ending(self.roster, self.pipes)
        self.starting = Starting(self.roster, self.pipes, self.ending, Evidence(f"{node_dir}/journal"))
        self.recovery = Recovery(self.roster, self.pipes, self.ending, self.starting, keeper, self.epoll)
        self.agents: AgentChannel | None = None
        self._wake = self._watch_children()
        self._retiring = False
        self._children_ended = True
        self._orphans_possible = True
        self._look_at_ms = 0

    def _watch_children(self) -> int:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.epoll.register(reader, select.EPOLLIN)
        return reader

    def recover(self, node_dir: str) -> None:
        """Take up what an earlier supervisor left, then listen for the agent."""
        self.recovery.run()
        self.epoll.register(self.keeper.sock.fileno(), select.EPOLLIN)
        self.agents = AgentChannel(node_dir, self.epoll)

    def run(self) -> None:
        """Until the agent asks for the end and nothing runs, or the keeper has to be replaced."""
        while not self._retiring:
            for fd, events in self.epoll.poll(self._wait_s(), 256):
                self._take(fd, events)
            now_ms = kernel.wall_ms()
            self.pipes.move(now_ms)
            if self._children_ended:
                self._reap()
            self.starting.start_some(_STARTS_A_TURN)
            monotonic_ms = kernel.monotonic_ms()
            self.pipes.try_again(monotonic_ms)
            self.ending.tick(monotonic_ms)
            self.ending.tell_leases(monotonic_ms)
            self.starting.say_running(monotonic_ms)
            self.recovery.look_again()
            self._tell()
            self._look_at_home(monotonic_ms)
            self._end_what_agents_left()
            if self.keeper.gone and not self._retiring:
                self.keeper.replace()
        self.keeper.ask_for_end()

    def _end_what_agents_left(self) -> None:
        """Commands that an agent has run inside of attempts die with it: nobody hears them any more."""
        if self.agents is not None and self.agents.left:
            self.agents.left = False
            kill_marked(node_mark(self.roster.node_dir))

    def _look_at_home(self, now_ms: int) -> None:
        """Where somebody has removed the node's folder, nobody can ever ask for what runs here: end it."""
        if now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + _LOOK_EVERY_MS
        if not self.roster.journal.gone:
            return
        for attempt in self.roster.living():
            self.ending.stop(attempt, Reason.CANCELLED, 0)
        self._retiring |= not self.roster.living() and not self.ending.helpers

    def _wait_s(self) -> float:
        if self.pipes.ready or self.starting.queue or self._children_ended or self._orphans_possible:
            return 0
        stalled_ms = self.pipes.next_due_ms(kernel.monotonic_ms())
        timers = (
            stalled_ms,
            self.roster.next_due_ms(),
            self.starting.next_due_ms(),
            self.roster.leases.next_look_ms,
            self.recovery.next_look_ms,
        )
        due = [ms for ms in timers if ms is not None]
        due.append(self._look_at_ms)
        return max(0, min(due) - kernel.monotonic_ms()) / 1000

    def _take(self, fd: int, events: int) -> None:
        agents = self.agents
        assert agents is not None
        if fd in self.pipes.by_fd:
            self.pipes.readable(fd, events)
        elif fd == self._wake:
            os.read(fd, 4096)
            self._children_ended = True
        elif fd == agents.agent:
            if events & select.EPOLLOUT:
                agents.flush()
            if events & ~select.EPOLLOUT:
                self._listen(agents)
        elif fd == agents.listener:
            self._listen(agents)  # what the old agent has sent counts, as far as it is here
            agents.accept()
        elif fd == self.keeper.sock.fileno():
            if self.keeper.listen():
                self.recovery.look_again(at_once=True)
        elif fd in self.recovery.adopted:
            self.recovery.ended(fd)

    def _listen(self, agents: AgentChannel) -> None:
        for message in agents.read():
            self._obey(message)

    def _obey(self, message: control.ToSupervisor) -> None:
        match message:
            case control.Run():
                self.starting.accept(message.plans)
            case control.StopAttempt():
                attempt = self.roster.attempts.get(message.attempt)
                if attempt is not None:
                    self.ending.stop(attempt, message.reason, message.grace_ms)
            case control.Forget():
                self.roster.forget(message.attempts)
            case control.Retire():
                self._retiring = not self.roster.unfinished() and not self.ending.helpers
            case control.Describe():
                self._describe(message)

    def _describe(self, message: control.Describe) -> None:
        attempt = self.roster.attempts.get(message.attempt)
        answer = control.Described(request=message.request)
        runs = attempt is not None and attempt.running and not attempt.starting
        if attempt is not None and runs and not self.ending.has_ended(attempt):
            answer = control.Described(request=message.request, plan=attempt.plan, pid=attempt.pid)
        if self.agents is not None:
            self.agents.send(answer)

    def _reap(self) -> None:
        """Take the children that have ended: each is on record before it is reaped."""
        for _ in range(_EXITS_A_TURN):
            found = kernel.next_exit()
            if found is None:
                self._children_ended = False
                break
            self._one_ended(found)
            kernel.reap(found.pid)
            self._orphans_possible = True
        if self._orphans_possible and not self._children_ended:
            self._orphans_possible = False
            self._kill_orphans()

    def _one_ended(self, found: kernel.Exit) -> None:
        attempt = self.roster.by_pid.pop(found.pid, None)
        if attempt is not None and attempt.starting:
            first = self.starting.starter_ended(attempt, found.status)
            if first is not None:
                self.ending.exited(attempt, first)
        elif attempt is not None:
            self.ending.exited(attempt, found)
        elif found.pid in self.ending.helpers:
            self.ending.helped(found.pid)
        elif self.roster.starters:
            executed = kernel.has_executed(found.pid)
            process = kernel.process(found.pid)  # a zombie until it is reaped
            start_ms = process.start_ms if process is not None else 0
            stray = Stray(found.pid, found.status, found.cpu_ms, found.peak_kib, executed, start_ms)
            self.roster.strays[found.pid] = stray
            self.roster.journal.add(stray)
            self.roster.journal.flush()
        else:
            self.roster.strays.clear()

    def _kill_orphans(self) -> None:
        unknown = [
            pid for pid in escapees.unknown_children(self.roster.by_pid) if pid not in self.ending.helpers
        ]
        if unknown and not self.roster.starters:
            live = self.roster.marks()
            escapees.kill_orphans(unknown, live, idle=not self.roster.living())

    def _tell(self) -> None:
        self.roster.journal.flush()
        self.roster.tend_journal()
        agents = self.agents
        assert agents is not None
        updates = tuple(self.roster.updates)
        self.roster.updates.clear()
        if agents.joined:
            agents.joined = False
            agents.send(control.Snapshot(instance=self.roster.journal.instance, known=self.roster.known()))
        elif updates and not self.roster.journal.gone:  # an end is told only once it is kept
            agents.send(control.Changed(updates=updates))


class Runtimes:
    """Made when first asked for: this program has to start quickly. It builds its own object graph."""

    def __init__(self, node_dir: str) -> None:
        self._node_dir = node_dir
        self._made: dict[str, Runtime] = {}

    def get(self, name: str) -> Runtime | None:
        if name not in self._made:
            if name == "process":
                self._made[name] = ProcessRuntime()
            elif name == "oci":
                self._made[name] = _oci(self._node_dir)
        return self._made.get(name)


def _oci(node_dir: str) -> Runtime:
    if os.geteuid() == 0:
        from towline.runtime.oci.runtime import OciRuntime

        return OciRuntime(node_dir)
    from towline.runtime.oci.rootless.runtime import RootlessRuntime

    return RootlessRuntime(node_dir)


def _heed_signals() -> None:
    """What whoever started the keeper ignores (a shell's background job: SIGINT and SIGQUIT) would come
    down to every attempt."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def main(arguments: list[str]) -> int:
    node_dir, keeper_fd, lock, *ready = arguments
    for fd in (int(keeper_fd), int(lock), *map(int, ready)):
        os.set_inheritable(fd, False)
    sys.stderr = Messages()
    kernel.become_subreaper()
    _heed_signals()
    os.chdir("/")
    keeper = KeeperLink(node_dir, socket.socket(fileno=int(keeper_fd)), int(lock))
    keeper.take_over()
    try:
        supervisor = Supervisor(node_dir, keeper, Runtimes(node_dir))
        supervisor.recover(node_dir)
        for fd in map(int, ready):
            os.close(fd)
        supervisor.run()
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        sys.stderr.write(
            f"supervisor: the disk of {node_dir} is full: the next one goes on when it has room\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
