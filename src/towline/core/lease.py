"""The node lease: until when the `stop` attempts of a node may live, and when its silence is a loss.

A node counts from before it sent a heartbeat that was answered, its leader from after it has heard one. So
whatever the network does, what a node must have ended by ``until_ms + grace_ms`` has ended before its
leader, which waits for ``lost_after``, places it elsewhere. All that is compared on a node is CLOCK_BOOTTIME.
"""

from __future__ import annotations

from typing import NamedTuple

DRIFT_MS = 1_000
"""What clocks may drift apart in one lease, and a kill may take."""
OTHER_ENFORCER_MS = DRIFT_MS // 2
"""After the grace the supervisor has killed; where it has not by so much later, the keeper does."""
LEADERSHIP_MS = 5_000
"""For so long nobody else leads after a leader has died."""
TAKEOVER_MS = 5_000
"""The next leader, or the same one started again, loads the pool in that time."""
JITTER_MS = 2_000
"""An agent tries again after so long at most; see core/agent/pauses.py."""
LINK_MS = 5
"""What a server needs for one agent that comes back, TLS and all, on a busy machine: docs/BENCHMARKS.md."""


class Lease(NamedTuple):
    """``since_ms`` is when the first heartbeat of an unbroken row of leases was sent, ``until_ms`` its end
    as far as is known. What a lease's end does not end within ``grace_ms`` is killed."""

    term: int
    since_ms: int
    until_ms: int
    grace_ms: int


NONE = Lease(0, 0, 0, 0)


def renewed(held: Lease, term: int, sent_ms: int, lease_ms: int, grace_ms: int) -> Lease:
    """The lease after the heartbeat that was sent at ``sent_ms`` was answered by the leader of ``term``;
    ``held`` as it is where that says nothing new."""
    until_ms = sent_ms + lease_ms
    if (term, until_ms) <= (held.term, held.until_ms):
        return held
    since_ms = held.since_ms if sent_ms < held.until_ms else sent_ms
    return Lease(term, since_ms, until_ms, grace_ms)


def may_start(held: Lease, since_ms: int, now_ms: int) -> bool:
    """Whether what was ordered in the row of leases that began at ``since_ms`` may start. In a later row it
    must not: the leader may have placed it elsewhere in between."""
    return held.since_ms == since_ms and now_ms < held.until_ms


def grace_left_ms(held: Lease, own_grace_ms: int, now_ms: int) -> int:
    """How long what is past its lease may take to end by itself."""
    return max(0, min(own_grace_ms, held.until_ms + held.grace_ms - now_ms))


def is_overdue(held: Lease, now_ms: int) -> bool:
    """Whether all that needed the lease has to be dead, whoever should have seen to it."""
    return now_ms >= held.until_ms + held.grace_ms + OTHER_ENFORCER_MS


class Silence(NamedTuple):
    """When a silent node's attempts are lost. ``leased``: its `stop` attempts end with its lease."""

    lost_after_ms: int = 25_000
    keep_ms: int = 25_000
    leased: bool = False

    def after_ms(self, on_disconnect: str) -> int | None:
        """After how long an attempt counts as lost; None: not before its node is back or given up."""
        if on_disconnect == "keep":
            return self.keep_ms
        return self.lost_after_ms if on_disconnect == "stop" and self.leased else None

    @property
    def first_ms(self) -> int:
        """After how long the node does."""
        return min(self.lost_after_ms, self.keep_ms)


def check_times(lease_ms: int, grace_ms: int, lost_after_ms: int) -> None:
    """Raises ValueError, which names the settings, where a lease may outlive its node's loss."""
    needed_ms = lease_ms + grace_ms + DRIFT_MS
    if needed_ms >= lost_after_ms:
        raise ValueError(
            f"node_lease ({_seconds(lease_ms)}) + lease_grace ({_seconds(grace_ms)}) + {_seconds(DRIFT_MS)} "
            f"for drifting clocks is {_seconds(needed_ms)}, and has to be less than lost_after "
            f"({_seconds(lost_after_ms)}): shorten node_lease or lease_grace, or raise lost_after"
        )


def reconnect_ms(nodes: int) -> int:
    """How long it takes until so many nodes, which come at once, are all linked again."""
    return JITTER_MS + LINK_MS * nodes


def short_for(nodes: int, lease_ms: int, heartbeat_ms: int) -> str | None:
    """What to say where leases may end because a leader is followed by another one: that costs the work of
    `stop` attempts, and breaks no promise. None where they are long enough for so many nodes."""
    needed_ms = LEADERSHIP_MS + TAKEOVER_MS + reconnect_ms(nodes) + heartbeat_ms
    if needed_ms < lease_ms:
        return None
    many = f"{nodes} nodes are" if nodes > 1 else "one node is"
    return (
        f"after a restart of the server it may take {_seconds(needed_ms)} until {many} linked again, and "
        f"node_lease is {_seconds(lease_ms)}: what has on_disconnect: stop may end meanwhile. "
        "Raise node_lease, and lost_after with it"
    )


def _seconds(ms: int) -> str:
    return f"{ms / 1000:g} s"
