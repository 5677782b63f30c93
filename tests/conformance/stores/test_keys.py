"""Idempotency keys: one job a key, whoever asks and however often."""

from __future__ import annotations

import asyncio

import msgspec
from tests.conformance.stores import rows

from towline.store.port import Store


async def test_the_first_reservation_stands(store: Store) -> None:
    first = rows.reservation("k1", "d1", "j1")
    assert await store.reserve([first]) == [first]
    assert await store.reserve([rows.reservation("k1", "d2", "j2")]) == [first]
    assert await store.reserved("default", "k1") == first
    assert await store.reserved("default", "k2") is None


async def test_a_batch_is_answered_in_order(store: Store) -> None:
    first = rows.reservation("k1")
    await store.reserve([first])
    second, third = rows.reservation("k2", job="j2"), rows.reservation("k3", job="j3")
    repeated = rows.reservation("k3", job="j4")
    again = rows.reservation("k1", job="j5")
    assert await store.reserve([second, again, third, repeated]) == [second, first, third, third]
    assert await store.reserve([]) == []


async def test_namespaces_have_keys_of_their_own(store: Store) -> None:
    mine, theirs = rows.reservation("k1"), rows.reservation("k1", job="j2", namespace="other")
    assert await store.reserve([mine, theirs]) == [mine, theirs]
    assert await store.reserved("other", "k1") == theirs
    assert await store.reserved("third", "k1") is None


async def test_a_released_key_is_free(store: Store) -> None:
    await store.reserve([rows.reservation("k1"), rows.reservation("k2")])
    await store.release("default", "k1")
    await store.release("default", "never there")
    assert await store.reserved("default", "k1") is None
    other = rows.reservation("k1", "d9", "j9")
    assert await store.reserve([other]) == [other]
    assert await store.reserve([rows.reservation("k2", job="j8")]) == [rows.reservation("k2")]


async def test_an_error_kept_under_a_key_is_its_answer(store: Store) -> None:
    first = rows.reservation("k1")
    await store.reserve([first])
    await store.answer("default", "k1", "internal_error: it broke")
    await store.answer("default", "never there", "nothing")
    kept = msgspec.structs.replace(first, error="internal_error: it broke")
    assert await store.reserve([rows.reservation("k1", job="j2")]) == [kept]
    assert await store.reserved("default", "k1") == kept


async def test_of_many_at_once_one_gets_the_key_and_all_learn_which(store: Store) -> None:
    asked = [
        [rows.reservation("k1", job=f"j{n}"), rows.reservation(f"own{n}", job=f"j{n}")] for n in range(50)
    ]
    stands = await asyncio.gather(*(store.reserve(pair) for pair in asked))
    assert len({shared.job for shared, _ in stands}) == 1
    assert [own for _, own in stands] == [own for _, own in asked]
