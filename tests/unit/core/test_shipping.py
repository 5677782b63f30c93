"""What a node ships next: turns, the window, and what a broken link changes."""

from __future__ import annotations

import random

import pytest

from towline.core.agent.shipping import Part, Shipping

OPEN = (False, False)
BOTH = (True, True)


def opened(*attempts: str, window: int = 1000, part: int = 10) -> Shipping:
    """Attempts that the server has nothing of."""
    shipping = Shipping(part)
    shipping.link_opened(window)
    for attempt in attempts:
        shipping.grown(attempt, (100, 0), False)
    shipping.openings(100)
    for attempt in attempts:
        shipping.acked(attempt, (0, 0), OPEN, window)
    return shipping


def sent(shipping: Shipping) -> Part:
    part = shipping.next()
    assert part is not None
    shipping.sent(part, part.limit)
    return part


def test_attempts_take_turns() -> None:
    shipping = opened("a", "b", "c")
    assert [sent(shipping).attempt for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


def test_no_more_than_the_window_is_under_way() -> None:
    shipping = opened("a", "b", window=25)
    assert [sent(shipping).limit for _ in range(3)] == [10, 10, 5]
    assert shipping.next() is None
    shipping.acked("a", (10, 0), OPEN, 25)
    assert sent(shipping) == Part("b", 0, 10, 10)
    assert shipping.next() is None


def test_a_smaller_window_waits_for_what_is_under_way() -> None:
    shipping = opened("a", window=40)
    for _ in range(4):
        sent(shipping)
    shipping.acked("a", (10, 0), OPEN, 10)
    assert shipping.next() is None
    shipping.acked("a", (40, 0), OPEN, 10)
    assert sent(shipping) == Part("a", 0, 40, 10)


def test_what_has_printed_nothing_is_not_asked_for_and_not_kept() -> None:
    shipping = opened()
    shipping.grown("a", (0, 0), False)
    assert shipping.openings(10) == ()
    assert shipping.growing == ["a"]
    shipping.grown("a", (0, 0), True)
    assert not shipping.knows("a")


def test_both_streams_end_and_then_it_is_done() -> None:
    shipping = opened("a")
    shipping.grown("a", (5, 0), True)
    first, second = sent(shipping), shipping.next()
    assert (first, second) == (Part("a", 0, 0, 5), Part("a", 1, 0, 0))
    assert second is not None
    assert shipping.sent(second, 0), "the empty stream ends too"
    assert not shipping.acked("a", (5, 0), (True, False), 100)
    assert shipping.acked("a", (5, 0), BOTH, 100)
    assert not shipping.knows("a")
    assert shipping.under_way_bytes == 0


def test_a_new_link_goes_on_from_what_the_server_has() -> None:
    shipping = opened("a")
    for _ in range(3):
        sent(shipping)
    shipping.link_closed()
    assert shipping.next() is None
    shipping.link_opened(100)
    assert shipping.under_way_bytes == 0
    assert shipping.next() is None
    assert shipping.openings(10) == ("a",)
    shipping.acked("a", (20, 0), OPEN, 100)
    assert sent(shipping) == Part("a", 0, 20, 10)


def test_what_is_refused_stays_until_its_time() -> None:
    shipping = opened("a", "b")
    sent(shipping)
    shipping.refused("a", 5_000)
    shipping.refused("a", None)  # the answer to what was under way
    assert sent(shipping).attempt == "b"
    assert sent(shipping).attempt == "b"
    shipping.retry(4_999)
    assert shipping.openings(10) == ()
    shipping.retry(5_000)
    assert shipping.openings(10) == ("a",)
    assert shipping.under_way_bytes == 20


def test_a_file_that_has_become_shorter_is_not_asked_for_again() -> None:
    shipping = opened("a")
    part = shipping.next()
    assert part is not None
    shipping.sent(part, 0)
    assert shipping.next() is None
    shipping.grown("a", (0, 0), False)
    shipping.grown("a", (12, 0), False)
    assert sent(shipping) == Part("a", 0, 0, 10)


class _Server:
    """Has bytes as counts; takes only what follows."""

    def __init__(self) -> None:
        self.sizes: dict[str, list[int]] = {}
        self.ended: dict[str, list[bool]] = {}

    def open(self, attempt: str) -> None:
        self.sizes.setdefault(attempt, [0, 0])
        self.ended.setdefault(attempt, [False, False])

    def take(self, part: Part, count: int, end: bool) -> None:
        assert self.sizes[part.attempt][part.stream] == part.offset, "a gap, or twice"
        assert not self.ended[part.attempt][part.stream]
        self.sizes[part.attempt][part.stream] += count
        self.ended[part.attempt][part.stream] = end


@pytest.mark.parametrize("seed", range(60))
def test_whatever_breaks_all_arrives_once(seed: int) -> None:
    chance = random.Random(seed)
    window = chance.randrange(1, 60)
    shipping, server = Shipping(chance.randrange(1, 20)), _Server()
    final = {f"a{at}": (chance.randrange(200), chance.randrange(100)) for at in range(5)}
    grown = {name: [0, 0] for name in final}
    done: set[str] = set()
    flying: list[tuple[Part, int, bool]] = []
    answers: list[str] = []
    linked = False
    for step in range(20_000):
        if not linked:
            flying.clear(), answers.clear()
            shipping.link_opened(window)
            linked = True
        quiet = step > 5_000  # then it may settle
        name = chance.choice(list(final))
        if name not in done and (shipping.knows(name) or grown[name] != list(final[name])):
            for stream in (0, 1):
                room = final[name][stream] - grown[name][stream]
                grown[name][stream] += room if quiet else chance.randint(0, min(room, 15))
            ended = tuple(grown[name]) == final[name]
            shipping.grown(name, (grown[name][0], grown[name][1]), ended)
        for opened_now in shipping.openings(2):
            server.open(opened_now)
            answers.append(opened_now)
        part = shipping.next()
        if part is not None:
            assert shipping.under_way_bytes + part.limit <= window
            flying.append((part, part.limit, shipping.sent(part, part.limit)))
        if flying and chance.random() < 0.5:
            server.take(*flying.pop(0))
            answers.append(
                chance.choice([p.attempt for p, _, _ in flying] or [part.attempt if part else name])
            )
        if answers and chance.random() < 0.8:
            answer = answers.pop(0)
            if answer in server.sizes and shipping.acked(
                answer, server.sizes[answer], server.ended[answer], window
            ):
                done.add(answer)
        if not flying and not answers:
            answers += [n for n in server.sizes if n not in done and shipping.knows(n)]
        if not quiet and chance.random() < 0.01:
            shipping.link_closed()
            linked = False
    for name, sizes in final.items():
        assert not any(sizes) or (tuple(server.sizes[name]) == sizes and all(server.ended[name])), name
        assert not shipping.knows(name)
