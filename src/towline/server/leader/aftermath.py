"""What a leader remembers of the breaks of its pool, and does about them after the reload."""

from __future__ import annotations

import structlog

from towline.core.commands import Cancel, Command, Quarantine, Report, Retry, Submit, Tick
from towline.errors import RequestError, StoreError, Unstorable
from towline.server.leader.batch import Batch, PoisonedEntry
from towline.server.leader.poison import Broken, InHand, command_id
from towline.store.port import Store

CAREFUL_COMMITS = 200
"""For so many commits after a break, updates of nodes are applied one by one."""
NAMELESS_BREAKS = 3
"""Breaks in a row that name no job before the pool stops for an operator."""
INTERNAL_ERROR = "Towline met an error of its own with this job and set it aside: the server's log says more."


class Aftermath:
    """Outlives the pool's memory; the leader asks it what to leave out and what to set aside."""

    def __init__(self, in_hand: InHand) -> None:
        self._in_hand = in_hand
        self._log = structlog.get_logger("leader")
        self._careful_commits = CAREFUL_COMMITS if in_hand.after_death else 0
        self._alone_commits = 0
        self._nameless = 0
        self._pending: dict[str, Quarantine] = {}
        self._answers: list[tuple[str, str]] = []
        self.skipped: set[str] = set()
        """Updates (``ATTEMPT:STATE``), cancellations and retries (their id) that broke the pool."""
        self.stopped: str | None = None
        """Why the pool has stopped for good, in words for an operator."""

    @property
    def careful(self) -> bool:
        return self._careful_commits > 0

    @property
    def alone(self) -> bool:
        """Each command, and each update of a node, has a commit of its own, so that the one whose values the
        store does not take has a name."""
        return self._alone_commits > 0

    def not_taken(self, batch: Batch, error: Unstorable) -> None:
        """The store never takes a value of a batch. Its commands are tried one by one after the reload; if
        they were, this one is refused. A node's update cannot be, nor can the time: raises PoisonedEntry."""
        if not self.alone or len(batch.entries) != 1:
            self._alone_commits = CAREFUL_COMMITS
            return
        self._alone_commits = 0
        ((entry, _),) = batch.entries
        if isinstance(entry.command, Report | Tick):
            command = None if isinstance(entry.command, Tick) else entry.command
            raise PoisonedEntry(entry, Broken(command, str(error))) from error
        self._log.error("a request is not kept", what=command_id(entry.command), reason=str(error))
        entry.answered(RequestError(f"The store does not take a value of this request: {error}"))
        batch.entries.clear()

    def judge(self, poisoned: PoisonedEntry) -> None:
        """A command or the pass broke the pool: name what is set aside after the reload."""
        broken = poisoned.broken
        self._log.error("the pool broke", what=str(broken), job=broken.job, exc_info=broken.__cause__)
        self._careful_commits = CAREFUL_COMMITS
        if broken.job is None:
            self._nameless += 1
            if self._nameless >= NAMELESS_BREAKS:
                self.stopped = f"The pool has stopped, since it broke over and over again: {broken}"
            return
        command = broken.command
        self._pending[broken.job] = Quarantine(
            job=broken.job,
            message=f"{INTERNAL_ERROR} ({broken})",
            submit=command if isinstance(command, Submit) else None,
        )
        self.skipped.update(_names(command))
        if isinstance(command, Submit) and poisoned.entry is not None and poisoned.entry.key is not None:
            self._answers.append(poisoned.entry.key)
        self._in_hand.reset()

    def quarantines(self) -> list[Quarantine]:
        return list(self._pending.values())

    async def settled(self, store: Store) -> None:
        """The quarantines are committed: keep the error as the answer to the submissions."""
        self._pending.clear()
        answers, self._answers = self._answers, []
        for namespace, key in answers:
            try:
                await store.answer(namespace, key, INTERNAL_ERROR)
            except StoreError as error:
                self._log.error("the answer to a submission was not kept", key=key, reason=str(error))

    def committed(self) -> None:
        """A batch has landed."""
        self._nameless = 0
        self._alone_commits = max(0, self._alone_commits - 1)
        self._careful_commits = max(0, self._careful_commits - 1)


def _names(command: Command | None) -> list[str]:
    if isinstance(command, Report):
        return [f"{update.attempt}:{update.state}" for update in command.updates]
    return [command_id(command)] if isinstance(command, Cancel | Retry) else []
