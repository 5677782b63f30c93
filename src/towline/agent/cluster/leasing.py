"""The agent's part of the node lease: it passes on what the server has answered, and enforces nothing."""

from __future__ import annotations

import structlog

from towline.agent.supervision.leasing.files import LeaseFile
from towline.core.lease import renewed
from towline.wire.messages import LeaseTimes


class NodeLease:
    """``since_ms`` is what attempts are ordered under that may live with the lease only; 0: there is none."""

    def __init__(self, node_dir: str) -> None:
        self._file = LeaseFile(node_dir)
        self._times: LeaseTimes | None = None
        self._log = structlog.get_logger("agent.lease")

    @property
    def since_ms(self) -> int:
        return 0 if self._times is None else self._file.held.since_ms

    def welcomed(self, times: LeaseTimes | None, term: int, sent_ms: int) -> None:
        """The leader of ``term`` has answered the Hello that was sent at ``sent_ms`` (CLOCK_BOOTTIME), and
        says how long leases are."""
        self._times = times
        self.answered(term, sent_ms)

    @property
    def term(self) -> int:
        """Of the leader that has granted it; 0: there is none."""
        return 0 if self._times is None else self._file.held.term

    def maintained(self, term: int, lease_ms: int) -> None:
        """The leader that has granted it stops for a while: it lasts for so long instead."""
        if self._times is not None and self._file.held.term == term:
            sent_ms = self._file.held.until_ms - self._times.lease_ms
            self._times = LeaseTimes(lease_ms=lease_ms, grace_ms=self._times.grace_ms)
            self.answered(term, sent_ms)

    def answered(self, term: int, sent_ms: int) -> None:
        """It has answered a heartbeat."""
        if self._times is None:
            return
        held = self._file.held
        lease = renewed(held, term, sent_ms, self._times.lease_ms, self._times.grace_ms)
        if lease == held:
            return
        try:
            self._file.write(lease)
        except OSError as error:
            self._log.error("the node lease cannot be noted, and will end", reason=str(error))
