"""The supervisor's half of the node lease: whether an attempt may start, and its end with the lease."""

from __future__ import annotations

from collections.abc import Callable

from towline.agent.supervision import kernel
from towline.agent.supervision.leasing.files import LOOK_MS, LeasedFolder, LeaseFile, kill
from towline.core import lease as rules
from towline.errors import NO_ROOM
from towline.model.states import Reason
from towline.runtime.cgroups import cgroup_name
from towline.runtime.port import Plan, StartFailed


class Expiring:
    """``announce`` tells the keeper that an attempt is about to live by the lease."""

    def __init__(self, node_dir: str, announce: Callable[[], None] = lambda: None) -> None:
        self._node_dir = node_dir
        self._lease = LeaseFile(node_dir)
        self._folder = LeasedFolder(node_dir)
        self._live: set[str] = set()
        self._told: set[str] = set()
        self._look_at_ms = 0
        self.announce = announce

    def may_start(self, plan: Plan) -> bool:
        """Whether what it was ordered under holds still."""
        if not plan.lease_ms:
            return True
        held = self._lease.read()
        return rules.may_start(held, plan.lease_ms, kernel.boottime_ms()) and not self.is_cut(plan)

    def enter(self, plan: Plan) -> None:
        """It is about to start. Raises StartFailed."""
        if not plan.lease_ms:
            return
        self._live.add(plan.attempt)
        out = plan.out if plan.runtime == "process" else ""
        try:
            self._folder.enter(plan.attempt, cgroup_name(plan.attempt, self._node_dir), out)
        except OSError as error:
            reason = Reason.DISK_FULL if error.errno in NO_ROOM else Reason.START_FAILED
            raise StartFailed(f"its node lease cannot be noted: {error.strerror}", reason.value) from error
        self.announce()

    def runs(self, plan: Plan, pid: int) -> None:
        """It has this process: its first, or its starter."""
        if plan.lease_ms:
            self._folder.runs(plan.attempt, pid)

    def take_up(self, plan: Plan, pid: int) -> None:
        """An earlier supervisor has started it."""
        if plan.lease_ms:
            self._live.add(plan.attempt)
            self._folder.runs(plan.attempt, pid)
            self.announce()

    def is_cut(self, plan: Plan) -> bool:
        """Whether the keeper has killed it, or is about to."""
        return bool(plan.lease_ms) and self._folder.is_cut(plan.attempt)

    def leave(self, plan: Plan) -> None:
        """Nothing of it lives any more."""
        if plan.lease_ms:
            self._live.discard(plan.attempt)
            self._told.discard(plan.attempt)
            self._folder.leave(plan.attempt)

    def clear(self, known: set[str]) -> None:
        """Those that nobody else knows any more must not live on."""
        unknown = [name for name in self._folder.names() if name not in known]
        kill([entry for name in unknown if (entry := self._folder.read(name)) is not None])
        for name in unknown:
            self._folder.leave(name)

    @property
    def next_look_ms(self) -> int | None:
        """CLOCK_MONOTONIC of the next look; None: nothing lives by the lease."""
        return self._look_at_ms if self._live else None

    def overdue(self, now_ms: int) -> list[str]:
        """The attempts that have to end now, each told once. ``now_ms`` is CLOCK_MONOTONIC."""
        if not self._live or now_ms < self._look_at_ms:
            return []
        self._look_at_ms = now_ms + LOOK_MS
        past = kernel.boottime_ms() >= self._lease.read().until_ms
        cut = {} if past else self._folder.names()
        found = [name for name in self._live if name not in self._told and (past or cut.get(name))]
        self._told.update(found)
        return found

    def grace_left_ms(self, own_grace_ms: int) -> int:
        return rules.grace_left_ms(self._lease.held, own_grace_ms, kernel.boottime_ms())
