"""What lies between the simulated processes: messages that each go alone, and wires, which are as TCP is.

What goes alone (requests of clients and to the store, and their answers) may be lost, late, doubled, and
overtaken by what was sent later. What goes by a wire arrives in order and whole for as long as the wire
lives: where a way is cut off it waits, and where the wire breaks, what was under way is lost. A node may have
several wires at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from towline.simulation.faults.world import MS, SECOND, World

Way = tuple[str, str]
"""(from whom, to whom)."""

LOST, DOUBLED, LATE = 0.004, 0.004, 0.006
LONGEST_US = 12 * SECOND
"""How late a message may be."""
NODE, SERVER = 0, 1
"""The ends of a wire, and what is sent from there."""


class Network:
    """``cut`` and ``heal`` part ways, in one direction each."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._cuts: dict[Way, int] = {}
        self._slow: dict[Way, int] = {}
        self._wires: dict[Wire, None] = {}

    # --- ways ---------------------------------------------------------------------------------------
    def cut(self, ways: list[Way]) -> None:
        for way in ways:
            self._cuts[way] = self._cuts.get(way, 0) + 1

    def heal(self, ways: list[Way]) -> None:
        """What waits on wires arrives now."""
        for way in ways:
            self._cuts[way] = max(0, self._cuts.get(way, 0) - 1)
        self._release()

    def heal_all(self) -> None:
        self._cuts.clear()
        self._slow.clear()
        self._release()

    def is_cut(self, source: str, target: str) -> bool:
        return self._cuts.get((source, target), 0) > 0

    def slow(self, way: Way, extra_us: int) -> None:
        """For so long each message of this way is under way beyond the usual; 0: no longer."""
        self._slow[way] = extra_us

    def latency_us(self, source: str, target: str) -> int:
        return 100 + int(self.world.random.random() * 3 * MS) + self._slow.get((source, target), 0)

    def _release(self) -> None:
        for wire in list(self._wires):
            wire.release()

    # --- messages that go alone -----------------------------------------------------------------------
    def post(self, source: str, target: str, what: str, heard: Callable[..., object], *args: Any) -> None:
        """Have ``heard`` called at the other end, unless the message is lost."""
        world = self.world
        if world.chance("a message is lost", LOST):
            return
        times = 2 if world.chance("a message comes twice", DOUBLED) else 1
        for _ in range(times):
            delay_us = self.latency_us(source, target)
            if world.chance("a message is late", LATE):
                delay_us += world.random.randrange(LONGEST_US)
            world.after(delay_us, self._arrive, source, target, what, heard, args)

    def _arrive(
        self, source: str, target: str, what: str, heard: Callable[..., object], args: tuple[Any, ...]
    ) -> None:
        if self.is_cut(source, target):
            return
        self.world.arrived(source, target, what, 1, what.encode())
        heard(*args)

    # --- wires ----------------------------------------------------------------------------------------
    def wire(self, node: str, server: str) -> Wire:
        wire = Wire(self, node, server)
        self._wires[wire] = None
        return wire

    def wires_of(self, name: str) -> list[Wire]:
        """Those that have an end there which is open."""
        return [wire for wire in self._wires if wire.is_of(name)]

    def gone(self, wire: Wire) -> None:
        self._wires.pop(wire, None)


class Wire:
    """``heard`` is told of each frame that arrives at an end, ``closed`` that the other end has closed it."""

    def __init__(self, network: Network, node: str, server: str) -> None:
        self._network = network
        self._names = (node, server)
        self._open = [True, True]
        self._free_us = [0, 0]
        self._parked: tuple[deque[bytes | None], deque[bytes | None]] = (deque(), deque())
        self.heard: list[Callable[[bytes], None]] = [_ignore, _ignore]
        self.closed: list[Callable[[], None]] = [_nothing, _nothing]

    def is_of(self, name: str) -> bool:
        return any(self._open[end] and self._names[end] == name for end in (NODE, SERVER))

    def is_open(self, end: int) -> bool:
        return self._open[end]

    def send(self, end: int, frame: bytes) -> None:
        """Nothing happens where this end is closed."""
        if self._open[end]:
            self._send(end, frame)

    def close(self, end: int) -> None:
        """The other end hears of it behind what was sent before."""
        if self._open[end]:
            self._open[end] = False
            self._send(end, None)
            self._look()

    def vanish(self, end: int) -> None:
        """As a machine without power: the other end hears nothing, until it sends something."""
        self._open[end] = False
        self._look()

    def break_(self) -> None:
        """Something between breaks it: what is under way is lost, both ends hear of it, each in its time."""
        world = self._network.world
        for end in (NODE, SERVER):
            self._parked[end].clear()
            if self._open[end]:
                world.after(world.random.randrange(MS, 500 * MS), self._end, end)
        self._open = [False, False]
        self._look()

    def release(self) -> None:
        for end in (NODE, SERVER):
            while self._parked[end] and not self._is_cut(end):
                self._deliver(end, self._parked[end].popleft())

    # --- on the way -----------------------------------------------------------------------------------
    def _send(self, end: int, frame: bytes | None) -> None:
        network, world = self._network, self._network.world
        at_us = world.now_us + network.latency_us(self._names[end], self._names[1 - end])
        at_us = self._free_us[end] = max(at_us, self._free_us[end] + 1)
        world.after(at_us - world.now_us, self._arrive, end, frame)

    def _is_cut(self, end: int) -> bool:
        return self._network.is_cut(self._names[end], self._names[1 - end])

    def _arrive(self, end: int, frame: bytes | None) -> None:
        if self._parked[end] or self._is_cut(end):
            self._parked[end].append(frame)
        else:
            self._deliver(end, frame)

    def _deliver(self, end: int, frame: bytes | None) -> None:
        to = 1 - end
        if not self._open[to]:
            if self._open[end]:  # nobody is there any more: the sender is told
                self._open[end] = False
                self._end(end)
                self._look()
        elif frame is None:
            self._open[to] = False
            self._end(to)
            self._look()
        else:
            count = message_count(frame)
            if count:
                self._network.world.arrived(
                    self._names[end], self._names[to], lambda: _described(frame, end), count, frame
                )
            self.heard[to](frame)

    def _end(self, end: int) -> None:
        self.closed[end]()

    def _look(self) -> None:
        if not any(self._open):
            self._network.gone(self)


def message_count(frame: bytes) -> int:
    """A frame is a msgpack array of messages."""
    head = frame[0]
    if 0x90 <= head <= 0x9F:
        return head & 0x0F
    return int.from_bytes(frame[1:3] if head == 0xDC else frame[1:5])


def _described(frame: bytes, end: int) -> str:
    from towline.wire.messages import decode_from_agent, decode_from_server

    messages = decode_from_agent(frame) if end == NODE else decode_from_server(frame)
    return "; ".join(_short(message) for message in messages)


def _short(message: Any) -> str:
    text = repr(message)
    return text if len(text) < 300 else f"{text[:300]}…"


def _ignore(_: bytes) -> None:
    """Of an end that nobody listens at."""


def _nothing() -> None:
    """Of an end that nobody holds."""
