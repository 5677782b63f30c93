"""A model of the leases, searched to its end: `python docs/models/lease.py`.

Two servers, a store, and one node with an attempt under `on_disconnect: stop`. Time comes in ticks, and
between two of them anything may happen in any order, or not happen: a server that takes no step is frozen, a
message that is not delivered is late, and every message may be lost. So the search meets every freeze,
partition, crash (a server that forgets) and delay there is within its bounds. What it looks for is in
`broken`; each name in `GUARDS` takes one rule away, and then it has to find something.

The rules are those of src/towline/core/leadership.py, core/lease.py and the fence of the store.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple


class Bounds(NamedTuple):
    """Ticks that a server may trust its lease, from before it asked for it; of the node lease, from before
    the heartbeat was sent; and for how long what is past its lease may live on (the grace, and how far clocks
    may drift apart meanwhile). The search ends where more than ``terms`` would have led."""

    leadership: int = 2
    node: int = 1
    after: int = 1
    terms: int = 2

    @property
    def dead(self) -> int:
        return self.node + self.after

    @property
    def lost(self) -> int:
        """Ticks of silence after which a leader places the attempt elsewhere."""
        return self.dead + 1


LARGE, SMALL = Bounds(), Bounds(leadership=1)
NOBODY = -1
PREPARED, LIVE, GONE = 0, 1, 2

GUARDS = {
    "fence": "a commit of an older term is refused",
    "scope": "a renewal is its holder's only",
    "sent": "a leader's trust counts from before it asked, not from the answer",
    "wait": "a lease is claimed only after it has not changed for its length",
    "beat sent": "the node lease counts from before the heartbeat, not from its answer",
    "heed": "the node ends with its lease what lives by it",
    "held": "a heartbeat is answered only while the leadership lease holds",
    "takeover": "silence counts from the takeover",
    "silence": "a node is lost only after its lease, the grace and the drift",
    "row": "what was ordered in one row of leases does not start in another one",
}


class Server(NamedTuple):
    """``seen`` is how long the lease has been the same, by what it knows (NOBODY: it has not looked), and
    ``stale`` whether it is another one by now. ``asks``: its request to the lease, or the answer (see
    ``_lease``), with its age. ``trust``: ticks that it holds. ``raising``: its request to raise the
    term is under way. ``commit``: the term of a commit under way that places the
    attempt elsewhere."""

    seen: int = NOBODY
    stale: bool = False
    asks: str = ""
    age: int = 0
    trust: int = 0
    raising: bool = False
    term: int = 0
    silence: int = 0
    lost: bool = False
    commit: int = 0


class State(NamedTuple):
    """``attempt``: 0 prepared, 1 live, 2 gone; ``beat``: a heartbeat under way to whoever reads it (age, term
    of the answer: 0 before that), or none."""

    servers: tuple[Server, Server]
    holder: int
    term: int
    placed: bool
    attempt: int
    row: bool
    lease_term: int
    lease_age: int
    beat: tuple[int, int] | None


def start(bounds: Bounds) -> State:
    """Server 0 leads, and the node has its lease."""
    leads = Server(trust=bounds.leadership, term=1)
    return State((leads, Server()), 0, 1, False, PREPARED, True, 1, 0, None)


Step = tuple[str, State]


def broken(before: State, after: State) -> str | None:
    """The promise that a step breaks."""
    if after.placed and after.attempt == LIVE:
        return "the attempt lives, and runs elsewhere too"
    if after.servers[0].trust and after.servers[1].trust:
        return "both servers trust that they hold the lease"
    if after.placed and not before.placed:
        landed = [
            s.commit for s, t in zip(before.servers, after.servers, strict=True) if s.commit and not t.commit
        ]
        if any(term < before.term for term in landed):
            return "a commit of an older term has landed"
    return None


class Model:
    """``without``: the guards that are taken away."""

    def __init__(self, bounds: Bounds, without: frozenset[str]) -> None:
        self._with = frozenset(GUARDS) - without
        self._bounds = bounds
        self._lost = bounds.lost if "silence" in self._with else bounds.dead - 1

    def steps(self, state: State) -> Iterator[Step]:
        for me in (0, 1):
            yield from self._server(state, me)
        yield from self._node(state)
        if (after := self._tick(state)) is not None:
            yield "tick", after

    def may_go_wrong(self, state: State) -> bool:
        """What becomes of the attempt plays no part in what servers do: where it cannot live any more, all
        that could be found is found in another state, where it can."""
        if state.attempt == GONE:
            return False
        return not state.placed or state.row or "row" not in self._with

    # --- time -------------------------------------------------------------------------------------------
    def _tick(self, state: State) -> State | None:
        """None where something cannot wait: the node has to end what is past its lease."""
        age = min(self._bounds.dead + 1, state.lease_age + 1)
        if state.attempt == LIVE and age > self._bounds.dead and "heed" in self._with:
            return None
        beat = state.beat
        if beat is not None:
            beat = (min(self._bounds.dead + 1, beat[0] + 1), beat[1])
        first, second = map(self._older, state.servers)
        return state._replace(servers=(first, second), lease_age=age, beat=beat)

    def _older(self, server: Server) -> Server:
        return server._replace(
            seen=min(self._bounds.leadership, server.seen + 1) if server.seen != NOBODY else NOBODY,
            age=min(self._bounds.leadership, server.age + 1) if server.asks else 0,
            trust=max(0, server.trust - 1),
            silence=min(self._lost, server.silence + 1) if server.term and not server.lost else 0,
        )

    # --- a server ---------------------------------------------------------------------------------------
    def _server(self, state: State, me: int) -> Iterator[Step]:
        server = state.servers[me]
        yield from self._lease(state, me, server)
        yield from self._lead(state, me, server)
        if server != Server():
            yield f"server {me} forgets all", _put(state, me, Server(commit=server.commit))
        if server.trust == 0 and server.term:
            yield f"server {me} steps down", _put(state, me, server._replace(term=0, silence=0, lost=False))

    def _lease(self, state: State, me: int, server: Server) -> Iterator[Step]:
        if not server.asks and server.trust:
            yield f"server {me} asks to renew", _put(state, me, server._replace(asks="renew", age=0))
        if not server.asks and not server.trust and not server.term:
            if server.seen == NOBODY or server.stale:
                yield f"server {me} reads the lease", _put(state, me, server._replace(seen=0, stale=False))
            elif (
                server.seen >= self._bounds.leadership
                or state.holder in (NOBODY, me)
                or "wait" not in self._with
            ):
                yield f"server {me} claims", _put(state, me, server._replace(asks="claim", age=0))
        if server.asks:
            yield f"a message of server {me} is lost", _put(state, me, server._replace(asks="", age=0))
        if server.asks == "claim" and not server.stale:
            yield f"server {me} has the lease", self._changed(state._replace(holder=me), me)
        if server.asks == "renew" and (state.holder == me or "scope" not in self._with):
            yield f"the lease of server {state.holder} is renewed", self._changed(state, me)
        if server.asks == "yes":
            left = self._bounds.leadership - server.age if "sent" in self._with else self._bounds.leadership
            held = server._replace(asks="", age=0, seen=NOBODY, stale=False, trust=max(server.trust, left))
            yield f"server {me} hears that it holds", _put(state, me, held)

    def _changed(self, state: State, me: int) -> State:
        """The lease is another one now: what others know of it is old. The answer is on its way."""
        own, other = state.servers[me], state.servers[1 - me]
        after = _put(state, me, own._replace(asks="yes", stale=True))
        return _put(after, 1 - me, other._replace(stale=other.seen != NOBODY))

    def _lead(self, state: State, me: int, server: Server) -> Iterator[Step]:
        if server.trust and not server.term and not server.raising:
            yield f"server {me} asks to raise the term", _put(state, me, server._replace(raising=True))
        if server.raising and state.term < self._bounds.terms:
            yield f"the term is raised for server {me}", self._raised(state, me, server)
        if server.term and not (server.lost or server.commit) and server.silence >= self._lost:
            gone = server._replace(lost=True, silence=0, commit=server.term)
            yield f"server {me} declares the node lost", _put(state, me, gone)
        if server.commit:
            yield f"the commit of server {me} is lost", _put(state, me, server._replace(commit=0))
            if server.commit == state.term or "fence" not in self._with:
                landed = state._replace(placed=True)
                yield f"the commit of server {me} lands", _put(landed, me, server._replace(commit=0))

    def _raised(self, state: State, me: int, server: Server) -> State:
        """Who holds the lease still then leads; a request that came late has but raised the term."""
        term, after = state.term + 1, server._replace(raising=False)
        if server.trust:
            silence = 0 if "takeover" in self._with else min(self._lost, state.lease_age + 1)
            after = after._replace(term=term, silence=0 if state.placed else silence, lost=state.placed)
        return _put(state._replace(term=term), me, after)

    # --- the node -----------------------------------------------------------------------------------------
    def _node(self, state: State) -> Iterator[Step]:
        holds = state.lease_age < self._bounds.node
        if state.attempt == PREPARED and holds and (state.row or "row" not in self._with):
            yield "the attempt starts", state._replace(attempt=LIVE)
        if state.attempt == LIVE and not holds and "heed" in self._with:
            yield "the attempt is ended with the lease", state._replace(attempt=GONE)
        if state.beat is None:
            yield "the node beats", state._replace(beat=(0, 0))
            return
        age, term = state.beat
        yield "a heartbeat is lost", state._replace(beat=None)
        if term:
            yield "the answer is heard", self._granted(state, age, term)
            return
        for me, server in enumerate(state.servers):
            if server.term and (server.trust or "held" not in self._with):
                heard = _put(state, me, server._replace(silence=0, lost=False))  # lost or not: it is back
                yield f"server {me} answers", heard._replace(beat=(age, server.term))

    def _granted(self, state: State, age: int, term: int) -> State:
        age = age if "beat sent" in self._with else 0
        after = state._replace(beat=None)
        if (term, -age) <= (state.lease_term, -state.lease_age):
            return after
        row = state.row and state.lease_age - age < self._bounds.node
        return after._replace(lease_term=term, lease_age=age, row=row)


def _put(state: State, me: int, server: Server) -> State:
    first, second = state.servers
    return state._replace(servers=(server, second) if me == 0 else (first, server))


class Found(NamedTuple):
    """``states`` were seen; ``promise`` is what the last of ``path`` breaks (None: nothing is ever
    broken)."""

    states: int
    promise: str | None
    path: list[str]


def search(bounds: Bounds, without: frozenset[str] = frozenset()) -> Found:
    """Every state that can be reached, the nearest first."""
    model, first = Model(bounds, without), start(bounds)
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    ahead = deque([first])
    while ahead:
        state = ahead.popleft()
        for name, after in model.steps(state):
            if after in came_from:
                continue
            came_from[after] = (state, name)
            if (promise := broken(state, after)) is not None:
                return Found(len(came_from), promise, _path(came_from, after))
            if model.may_go_wrong(after):
                ahead.append(after)
    return Found(len(came_from), None, [])


def _path(came_from: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    steps: list[str] = []
    while (before := came_from[state]) is not None:
        state, name = before
        steps.append(name)
    return steps[::-1]


def bounds_without(guard: str) -> Bounds:
    """The smallest in which its absence shows."""
    return LARGE if guard == "scope" else SMALL


def main() -> int:
    status = 0
    for bounds in (SMALL, LARGE):
        begun_s = time.process_time()
        found = search(bounds)
        took_s = time.process_time() - begun_s
        said = found.promise or "no promise is ever broken"
        sys.stdout.write(f"{bounds}: {found.states:,} states in {took_s:.1f} s of CPU: {said}\n")
        sys.stdout.writelines(f"    {step}\n" for step in found.path)
        status |= found.promise is not None
    for guard, rule in GUARDS.items():
        found = search(bounds_without(guard), frozenset({guard}))
        said = f"{found.promise}, after {len(found.path)} steps" if found.promise else "NOTHING IS FOUND"
        sys.stdout.write(f"without {guard!r} ({rule}): {said}\n")
        status |= found.promise is None
    return status


if __name__ == "__main__":
    sys.exit(main())
