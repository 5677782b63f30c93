"""The pipes that attempts write to, kept in slots that are used again.

A slot's two read ends are held by the supervisor and, from its making, by the keeper: nothing is
passed on for the single attempt. The attempt gets fresh ends, opened for reading and writing, so
that it never meets a broken pipe even if both of us are dead. Their mode lets every user reopen
``/dev/stderr``. When all is read and nobody holds another end, the slot is free for the next.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from towline.agent.supervision.handover import KeeperLink

if TYPE_CHECKING:
    from towline.agent.supervision.attempt import Attempt

_MODE = 0o666
_TURN_BYTES = 256 << 10
_LAST_BYTES = 4 << 20
_STALLED_MS = 300
"""What did not fit onto the disk is tried again after so long."""
_EVENTS = select.EPOLLIN | select.EPOLLET


class Slot:
    """``fds`` are the read ends of stdout and stderr, ``inodes`` their pipes."""

    __slots__ = ("attempt", "fds", "inodes", "number", "owner", "poller")

    def __init__(self, number: int, fds: tuple[int, int]) -> None:
        self.number = number
        self.fds = fds
        self.attempt: Attempt | None = None
        stats = [os.fstat(fd) for fd in fds]
        self.inodes = (stats[0].st_ino, stats[1].st_ino)
        self.owner = [(stat.st_uid, stat.st_mode) for stat in stats]
        self.poller = select.poll()
        for fd in fds:
            self.poller.register(fd, select.POLLIN)

    def open_ends(self) -> tuple[int, int]:
        flags = os.O_RDWR | os.O_CLOEXEC
        out = os.open(f"/proc/self/fd/{self.fds[0]}", flags)
        try:
            return out, os.open(f"/proc/self/fd/{self.fds[1]}", flags)
        except OSError:
            os.close(out)
            raise

    def untouched(self) -> bool:
        """Nobody holds another end, nothing waits, and it belongs to whom it did."""
        events = self.poller.poll(0)
        if len(events) != 2 or any(event & select.POLLIN for _, event in events):
            return False
        return [(s.st_uid, s.st_mode) for s in map(os.fstat, self.fds)] == self.owner

    @property
    def names(self) -> tuple[str, str]:
        return f"out.{self.number}", f"err.{self.number}"


class Pipes:
    """All slots of a supervisor, and the bounded work of emptying those that have something."""

    def __init__(self, epoll: select.epoll, keeper: KeeperLink) -> None:
        self.by_fd: dict[int, tuple[Slot, int]] = {}
        self.slots: dict[int, Slot] = {}
        self._epoll = epoll
        self._keeper = keeper
        self._free: list[Slot] = []
        self._next = 1 + max(
            (int(name.partition(".")[2]) for name in keeper.held if _is_pipe(name)), default=0
        )
        self.ready: dict[int, Attempt] = {}
        self._stalled: dict[int, Attempt] = {}
        self._again_ms = 0

    def take(self, attempt: Attempt) -> Slot:
        """Raises OSError where no descriptors are left."""
        slot = self._free.pop() if self._free else self._make()
        slot.attempt = attempt
        return slot

    def _make(self) -> Slot:
        fds: list[int] = []
        try:
            for _ in range(2):
                reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
                fds.append(reader)
                os.close(writer)
                os.fchmod(reader, _MODE)
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        return self.add(self._next, (fds[0], fds[1]), told=False)

    def add(self, number: int, fds: tuple[int, int], told: bool) -> Slot:
        """Watch the pipes behind these read ends; ``told`` where the keeper has them already."""
        slot = Slot(number, fds)
        self._next = max(self._next, number + 1)
        self.slots[number] = slot
        for stream, fd in enumerate(fds):
            self.by_fd[fd] = (slot, stream)
            self._epoll.register(fd, _EVENTS)
        if not told:
            self._keeper.give(dict(zip(slot.names, fds, strict=True)))
        return slot

    def unused_number(self) -> int:
        return self._next

    def readable(self, fd: int, events: int) -> None:
        """epoll says that something came, or that the last writer went."""
        attempt = self.by_fd[fd][0].attempt
        if attempt is not None and events & select.EPOLLIN:
            self.ready[fd] = attempt

    def move(self, now_ms: int) -> None:
        """One bounded piece from each pipe that has something: a flood does not hold up the others."""
        for fd, attempt in list(self.ready.items()):
            slot, stream = self.by_fd.get(fd, (None, 0))
            if slot is None or slot.attempt is not attempt or attempt.log is None:
                del self.ready[fd]  # it has ended since, and was drained then
            elif attempt.log.move(stream, fd, _TURN_BYTES, now_ms) <= 0:
                del self.ready[fd]
                if attempt.log.stalled:
                    self._stalled[fd] = attempt

    def next_due_ms(self, monotonic_ms: int) -> int | None:
        """When what has stalled is to be tried again (CLOCK_MONOTONIC); None: nothing has."""
        if not self._stalled:
            return None
        self._again_ms = self._again_ms or monotonic_ms + _STALLED_MS
        return self._again_ms

    def try_again(self, monotonic_ms: int) -> None:
        """The disk may have room now."""
        if 0 < self._again_ms <= monotonic_ms:
            self.ready |= self._stalled
            self._stalled.clear()
            self._again_ms = 0

    def drain(self, slot: Slot, now_ms: int) -> bool:
        """What waits now that the attempt has ended. A process that outlived it cannot hold this up. False
        where the disk has no room for it."""
        attempt = slot.attempt
        if attempt is None or attempt.log is None:
            return True
        for fd, event in slot.poller.poll(0):
            if event & select.POLLIN:
                stream = self.by_fd[fd][1]
                left = _LAST_BYTES
                while left > 0 and (moved := attempt.log.move(stream, fd, left, now_ms)) > 0:
                    left -= moved
                if attempt.log.stalled:
                    return False
        return True

    def release(self, slot: Slot) -> None:
        """No attempt has it (any more): keep it for another one, or close it."""
        slot.attempt = None
        if slot in self._free:
            return
        if slot.untouched():
            self._free.append(slot)
        else:
            self.close(slot)

    def close(self, slot: Slot) -> None:
        del self.slots[slot.number]
        for fd in slot.fds:
            self._stalled.pop(fd, None)
            del self.by_fd[fd]
            self._epoll.unregister(fd)
            os.close(fd)
        self._keeper.take_back(slot.names)


def _is_pipe(name: str) -> bool:
    return name.startswith(("out.", "err."))
