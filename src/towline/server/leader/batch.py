"""One batch of the leader: commands applied one after another, one pass, one commit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Protocol, cast

from towline.core.commands import AttemptUpdate, Command, NodeUp, Order, Report
from towline.core.pool import Pool
from towline.core.rows import Changes
from towline.errors import OperatorError, RequestError
from towline.model.states import AttemptState
from towline.server.leader.poison import Broken, InHand, command_id

TERMINAL = (AttemptState.FINISHED.value, AttemptState.LOST.value)

Answered = Callable[[object], None]
"""Called once with a command's answer, or with the exception that stands for it."""


class Entry:
    """A command that waits for its answer. ``key`` is a submission's (namespace, idempotency key)."""

    __slots__ = ("answered", "command", "key")

    def __init__(self, command: Command, answered: Answered, key: tuple[str, str] | None = None) -> None:
        self.command = command
        self.answered = answered
        self.key = key


def apart(entry: Entry) -> list[Entry]:
    """The same in parts that each have one update of a node at most. What a Hello says of attempts its node
    says again as long as it is not acknowledged: here it only says that it has them."""
    command = entry.command
    if isinstance(command, NodeUp):
        known = tuple(
            AttemptUpdate(attempt=update.attempt, state=AttemptState.PREPARING.value)
            for update in command.known
        )
        return [Entry(NodeUp(node=command.node, known=known), entry.answered)]
    if not isinstance(command, Report) or len(command.updates) < 2:
        return [entry]
    told: list[object] = []
    count = len(command.updates)

    def answered(answer: object) -> None:
        told.append(answer)
        if len(told) == count:
            failed = [each for each in told if isinstance(each, Exception)]
            forget = () if failed else sum(cast("list[tuple[str, ...]]", told), ())
            entry.answered(failed[0] if failed else forget)

    return [Entry(Report(node=command.node, updates=(update,)), answered) for update in command.updates]


class PoisonedEntry(Exception):
    """An entry whose command broke the pool."""

    def __init__(self, entry: Entry | None, broken: Broken) -> None:
        self.entry = entry
        self.broken = broken
        super().__init__(str(broken))


class Caution(Protocol):
    """What earlier breaks of the pool ask for."""

    @property
    def careful(self) -> bool:
        """Updates of nodes are applied one by one, so that the one that breaks the pool has a name."""
        ...

    @property
    def skipped(self) -> Collection[str]:
        """Updates that did, as ``ATTEMPT:STATE``: they are not applied, and acknowledged without being
        forgotten; and the ids of other commands, which are refused."""
        ...


class Applier:
    """Applies commands to a pool, and knows at every moment which one is in hand."""

    def __init__(self, pool: Pool, in_hand: InHand, caution: Caution) -> None:
        self._pool = pool
        self._in_hand = in_hand
        self._caution = caution

    def apply(self, command: Command, now_ms: int) -> object:
        """The pool's answer, or the error with which it is refused. Raises Broken."""
        if isinstance(command, Report | NodeUp):
            return self._apply_updates(command, now_ms)
        skipped = self._caution.skipped
        if skipped and command_id(command) in skipped:
            return OperatorError("Towline met an error of its own with this request: see the server's log.")
        return self._apply_one(command, now_ms)

    def _apply_updates(self, command: Report | NodeUp, now_ms: int) -> object:
        if not self._caution.careful and not self._caution.skipped:
            return self._apply_one(command, now_ms)
        forget: list[str] = []
        for single in self._singles(command):
            answer = self._apply_one(single, now_ms)
            if isinstance(answer, RequestError):
                return answer
            forget += cast("tuple[str, ...]", answer)
        return tuple(forget)

    def _singles(self, command: Report | NodeUp) -> Iterator[Command]:
        """The same, one update at a time. What is skipped stays in the node's journal: it is known to
        the node for ever, so that it is never started again."""
        if isinstance(command, Report):
            node, updates = command.node, command.updates
        else:
            node, updates = command.node.id, command.known
            yield NodeUp(node=command.node, known=tuple(_unended(update) for update in updates))
            updates = tuple(update for update in updates if update.state in TERMINAL)
        for update in updates:
            if f"{update.attempt}:{update.state}" not in self._caution.skipped:
                yield Report(node=node, updates=(update,))

    def _apply_one(self, command: Command, now_ms: int) -> object:
        ident = command_id(command)
        if self._in_hand.is_poison(ident):
            raise Broken(command, "the server died over it three times in a row")
        self._in_hand.hold(ident)
        try:
            answer: object = self._pool.apply(command, now_ms)
        except RequestError as refused:
            answer = refused
        except Exception as cause:
            raise Broken(command, f"{type(cause).__name__}: {cause}") from cause
        finally:
            self._in_hand.drop()
        self._in_hand.went_well(ident)
        return answer


def _unended(update: AttemptUpdate) -> AttemptUpdate:
    if update.state not in TERMINAL:
        return update
    return AttemptUpdate(attempt=update.attempt, state=AttemptState.PREPARING.value)


class Batch:
    """Entries applied so far, and after ``close`` what their commit holds."""

    def __init__(self) -> None:
        self.entries: list[tuple[Entry, object]] = []
        self.updates = 0
        self.changes: Changes | None = None
        self.orders: list[Order] = []

    def apply(self, applier: Applier, entry: Entry, now_ms: int) -> None:
        """Raises PoisonedEntry; the entry is then not part of the batch."""
        try:
            answer = applier.apply(entry.command, now_ms)
        except Broken as broken:
            raise PoisonedEntry(entry, broken) from broken
        self.entries.append((entry, answer))
        self.updates += len(entry.command.updates) if isinstance(entry.command, Report) else 1

    def close(self, pool: Pool, now_ms: int) -> None:
        """Run the pass and take everything that has changed. Raises PoisonedEntry without an entry."""
        try:
            pool.schedule(now_ms)
            self.changes, self.orders = pool.collect()
        except Exception as cause:
            broken = Broken(None, f"{type(cause).__name__}: {cause}")
            raise PoisonedEntry(None, broken) from cause

    def answer(self) -> None:
        entries, self.entries = self.entries, []
        for entry, answer in entries:
            entry.answered(answer)

    def refuse(self, error: Exception) -> None:
        """The same error for every caller."""
        entries, self.entries = self.entries, []
        for entry, _ in entries:
            entry.answered(error)
