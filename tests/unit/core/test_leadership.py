"""The leadership lease's rules, under every order of requests and answers, and who leads what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.core.leadership import (
    LEASE_MS,
    NOBODY,
    STAGGER_MS,
    LeaseRow,
    Plan,
    Seen,
    holds,
    is_still,
    may_claim,
    renewed,
    seen,
    spread,
)


def test_a_value_is_known_since_its_first_read() -> None:
    first = seen(None, ("a", 1), 1_000)
    assert seen(first, ("a", 1), 1_500) == Seen(("a", 1), 1_000)
    assert seen(first, ("a", 2), 1_500) == Seen(("a", 2), 1_500)


@pytest.mark.parametrize(
    ("row", "now_ms", "may"),
    [
        (LeaseRow("p"), 0, True),
        (LeaseRow("p", "me", 7), 0, True),
        (LeaseRow("p", "other", 7), LEASE_MS - 1, False),
        (LeaseRow("p", "other", 7), LEASE_MS, True),
    ],
)
def test_what_may_be_claimed(row: LeaseRow, now_ms: int, may: bool) -> None:
    assert may_claim(seen(None, row.state, 0), "me", now_ms) is may


def test_trust_counts_from_the_sending_and_never_falls() -> None:
    until_ms = renewed(0, 1_000)
    assert until_ms == 1_000 + LEASE_MS
    assert renewed(until_ms, 900) == until_ms
    assert holds(until_ms, until_ms - 1) and not holds(until_ms, until_ms)
    assert is_still(Seen("beat", 0), LEASE_MS)


class Server:
    """One server that asks for one lease, by the rules; requests and answers take any time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: Seen[tuple[str, int]] | None = None
        self.until_ms = 0


class World:
    """A row, and what is under way: requests to the store and answers from it, delivered in any order."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.row = LeaseRow("p")
        self.servers = [Server("a"), Server("b"), Server("c")]
        self.requests: list[tuple[Server, str, int, tuple[str, int]]] = []
        self.answers: list[tuple[Server, str, int, tuple[str, int]]] = []

    def ask(self, server: Server) -> None:
        if holds(server.until_ms, self.now_ms):
            self.requests.append((server, "renew", self.now_ms, ("", 0)))
            return
        self.requests.append((server, "look", self.now_ms, ("", 0)))
        if server.seen is not None and may_claim(server.seen, server.name, self.now_ms):
            self.requests.append((server, "claim", self.now_ms, server.seen.value))

    def arrive(self, at: int) -> None:
        server, what, sent_ms, expected = self.requests.pop(at % len(self.requests))
        holder, renewals = self.row.state
        if what == "look":
            self.answers.append((server, what, sent_ms, self.row.state))
        elif (what == "claim" and expected == self.row.state) or (what == "renew" and holder == server.name):
            self.row = LeaseRow("p", server.name, renewals + 1)
            self.answers.append((server, what, sent_ms, self.row.state))

    def answer(self, at: int) -> None:
        server, what, sent_ms, state = self.answers.pop(at % len(self.answers))
        if what == "look":
            server.seen = seen(server.seen, state, self.now_ms)
        else:
            server.until_ms = renewed(server.until_ms, sent_ms)


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "arrive", "answer", "lose", "wait"]), st.integers(0, 40)), max_size=120
)


@given(STEPS)
def test_two_servers_never_trust_one_lease(steps: list[tuple[str, int]]) -> None:
    world = World()
    for what, number in steps:
        if what == "ask":
            world.ask(world.servers[number % 3])
        elif what == "arrive" and world.requests:
            world.arrive(number)
        elif what == "answer" and world.answers:
            world.answer(number)
        elif what == "lose" and world.answers:
            world.answers.pop()
        elif what == "wait":
            world.now_ms += number * LEASE_MS // 20
        assert sum(holds(server.until_ms, world.now_ms) for server in world.servers) <= 1


def test_the_world_above_lets_a_lease_change_hands() -> None:
    """Else the property would hold of nothing."""
    world = World()
    first, second = world.servers[:2]
    for server in (first, second):
        world.ask(server)
        world.arrive(0)
        world.answer(0)
    world.ask(first)
    world.arrive(1)
    world.answer(0)
    assert holds(first.until_ms, world.now_ms)
    for _ in range(2):
        world.now_ms += LEASE_MS
        world.ask(second)
        while world.requests:
            world.arrive(0)
        while world.answers:
            world.answer(0)
    assert holds(second.until_ms, world.now_ms)


# --- who leads what ----------------------------------------------------------------------------------
def settle(servers: list[str], holders: dict[str, str]) -> tuple[dict[str, str], int]:
    """Do what the plans say until they say nothing more; returns how many pools changed hands too."""
    moves = 0
    for _ in range(200):
        plans = {server: spread(server, servers, holders) for server in servers}
        holders = dict(holders)
        if all(plan == Plan() for plan in plans.values()):
            return holders, moves
        for server, plan in plans.items():
            if plan.hand_over is not None:
                holders[plan.hand_over] = NOBODY
                moves += 1
            for pool, after_ms in plan.claims:
                if after_ms == 0 and holders[pool] == NOBODY:
                    holders[pool] = server
    raise AssertionError("the pools never come to rest")


def counts(servers: list[str], holders: dict[str, str]) -> list[int]:
    return [sum(holder == server for holder in holders.values()) for server in servers]


NAMES = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


@given(NAMES, st.lists(st.sampled_from("pqrstuvwxyz"), max_size=11, unique=True), st.data())
def test_pools_spread_evenly_and_come_to_rest(
    servers: list[str], pools: list[str], data: st.DataObject
) -> None:
    start = {pool: data.draw(st.sampled_from([*servers, NOBODY])) for pool in pools}
    holders, moves = settle(servers, start)
    found = counts(servers, holders)
    assert max(found) - min(found) <= 1
    assert NOBODY not in holders.values()
    surplus = sum(max(0, count - len(pools) // len(servers)) for count in counts(servers, start))
    assert moves <= surplus  # no pool moves for nothing


def test_even_pools_stay_where_they_are() -> None:
    holders = {"p": "a", "q": "b", "r": "a"}
    assert [spread(server, "ab", holders) for server in "ab"] == [Plan(), Plan()]


def test_one_server_alone_takes_everything_at_once() -> None:
    assert spread("a", ["a"], {"p": NOBODY, "q": NOBODY}).claims == (("p", 0), ("q", 0))


def test_servers_stand_in_one_line_for_a_free_pool() -> None:
    plans = [spread(server, "abc", {"p": NOBODY}) for server in "abc"]
    assert sorted(plan.claims[0][1] for plan in plans) == [0, STAGGER_MS, 2 * STAGGER_MS]


def test_nothing_is_let_go_of_while_a_pool_has_no_holder() -> None:
    holders = {"p": "a", "q": "a", "r": "a", "s": NOBODY}
    assert [spread(server, "ab", holders).hand_over for server in "ab"] == [None, None]


def test_of_several_that_have_too_many_one_lets_go() -> None:
    holders = {f"{server}{n}": server for server in "abcd" for n in range(2)}
    letting_go = [server for server in "abcde" if spread(server, "abcde", holders).hand_over]
    assert letting_go == ["d"]
