"""The agent's connection to its supervisor, on the event loop that the agent runs on."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import uvloop

from towline.agent import control
from towline.agent.supervisor_client import SupervisorClient
from towline.core.agent import events as on
from towline.core.commands import AttemptUpdate

PATIENCE_S = 10.0


class QuickSupervisor(threading.Thread):
    """Accepts one agent, sends its snapshot at once, and takes what it is told."""

    def __init__(self, node_dir: Path) -> None:
        super().__init__()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(PATIENCE_S)
        self.listener.bind(str(node_dir / "supervisor.sock"))
        self.listener.listen()
        self.snapshot_sent = threading.Event()
        self.told: list[control.ToSupervisor] = []

    def run(self) -> None:
        with self.listener, self.listener.accept()[0] as sock:
            sock.settimeout(PATIENCE_S)
            sock.sendall(control.encode([control.Snapshot(instance="a", known=())]))
            self.snapshot_sent.set()
            try:
                length = int.from_bytes(sock.recv(4), "big")
                self.told += control.decode_to_supervisor(sock.recv(length))
            except TimeoutError:
                return


class Executor:
    """Answers a snapshot as the machine does: with what is to be done on the node."""

    def __init__(self) -> None:
        self.client: SupervisorClient
        self.told: list[on.Event] = []

    def tell(self, *events: on.Event) -> None:
        self.told += events
        if any(isinstance(event, on.SupervisorUp) for event in events):
            self.client.say(control.Forget(attempts=("x",)))

    def changed(self, updates: Sequence[AttemptUpdate]) -> None:
        raise AssertionError(updates)

    def settled(self, updates: Sequence[AttemptUpdate]) -> list[AttemptUpdate]:
        return list(updates)


def test_what_is_said_to_a_supervisor_that_answers_at_once_arrives(tmp_path: Path) -> None:
    """Its snapshot can be read before whoever waits for the connection has heard that there is one."""
    supervisor = QuickSupervisor(tmp_path)
    supervisor.start()
    executor = Executor()
    executor.client = SupervisorClient(str(tmp_path), executor)

    async def connect() -> None:
        running = asyncio.create_task(executor.client.run())
        await asyncio.sleep(0)  # it has called connect
        assert await_blocking(supervisor.snapshot_sent)
        await executor.client.journal_read.wait()
        await asyncio.to_thread(supervisor.join)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(connect())
    assert supervisor.told == [control.Forget(attempts=("x",))]


def await_blocking(event: threading.Event) -> bool:
    """Without giving the event loop its turn: so the snapshot waits when it looks for what has come."""
    return event.wait(PATIENCE_S)
