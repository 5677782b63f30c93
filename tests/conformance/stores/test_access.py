"""Tokens, enrolled nodes, and the audit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec import structs
from tests.conformance.stores.registry import DURABLE, STORES

from towline.store.access import AuditRow, EnrolmentRow, TokenRow
from towline.store.port import Store


def token(id: str, **fields: object) -> TokenRow:
    values = {"kind": "api", "name": "ci", "role": "viewer", "namespace": "default", "created_at": 10}
    return TokenRow(id=id, digest=b"\0\xff", **{**values, **fields})  # type: ignore[arg-type]


def node(id: str, **fields: object) -> EnrolmentRow:
    return EnrolmentRow(node=id, **{"name": id, "enrolled_at": 10, "expires_at": 20, **fields})  # type: ignore[arg-type]


def request(target: str, at: int = 10, seq: int = 0) -> AuditRow:
    return AuditRow(
        seq=seq, at=at, who="token ci", namespace="default", action="POST /v1/jobs", target=target,
        status=201, source="10.0.0.1",
    )  # fmt: skip


async def test_tokens_are_kept_until_they_are_deleted(store: Store) -> None:
    rows = [token("b", expires_at=20), token("a", kind="join", pool="gpu")]
    for row in rows:
        await store.token_put(row)
    assert await store.token_list() == [rows[1], rows[0]]
    assert await store.token_delete("b")
    assert not await store.token_delete("b")
    assert await store.token_list() == [rows[1]]


async def test_a_join_token_is_used_once_by_one_of_many(store: Store) -> None:
    await store.token_put(token("a", kind="join"))
    used = await asyncio.gather(*(store.token_use("a", 30 + n) for n in range(20)))
    assert sorted(used) == [False] * 19 + [True]
    assert [row.used_at for row in await store.token_list()] == [30 + used.index(True)]
    assert not await store.token_use("b", 30)


async def test_an_enrolment_takes_the_place_of_the_older_one(store: Store) -> None:
    for row in (node("n2"), node("n1"), node("n2", name="two", expires_at=99, pool="gpu")):
        await store.enrolment_put(row)
    assert await store.enrolment_list() == [
        node("n1"),
        node("n2", name="two", expires_at=99, pool="gpu"),
    ]
    assert await store.enrolment_delete("n1")
    assert not await store.enrolment_delete("n1")


async def test_an_enrolment_is_renewed_as_long_as_it_is_the_same(store: Store) -> None:
    row = node("n1", pool="gpu")
    await store.enrolment_put(row)
    at = row.enrolled_at
    assert await store.enrolment_renew("n1", at, at - 1, 99)
    assert not await store.enrolment_renew("n1", at, at, 100)
    assert await store.enrolment_list() == [node("n1", pool="gpu", enrolled_at=at - 1, expires_at=99)]
    await store.enrolment_delete("n1")
    assert not await store.enrolment_renew("n1", at - 1, at, 100)
    assert await store.enrolment_list() == []


async def test_the_audit_is_read_backwards_in_pages(store: Store) -> None:
    await asyncio.gather(*(store.audit_append([request(f"{n}-{m}") for m in range(3)]) for n in range(4)))
    found = await store.audit_list(None, 100)
    assert [row.seq for row in found] == list(range(12, 0, -1))
    assert {row.target for row in found} == {f"{n}-{m}" for n in range(4) for m in range(3)}
    assert await store.audit_list(None, 5) == found[:5]
    assert await store.audit_list(found[4].seq, 100) == found[5:]


async def test_old_rows_of_the_audit_are_deleted(store: Store) -> None:
    await store.audit_append([request("old", 10), request("new", 20)])
    assert await store.audit_expire(20) == 1
    assert await store.audit_list(None, 9) == [request("new", 20, seq=2)]
    await store.audit_append([request("newer", 30)])
    assert [row.seq for row in await store.audit_list(None, 9)] == [3, 2]


@pytest.mark.parametrize("name", DURABLE)
async def test_all_of_it_is_there_when_the_store_is_opened_again(name: str, tmp_path: Path) -> None:
    store = STORES[name](tmp_path)
    await store.open()
    await store.token_put(token("a"))
    await store.token_use("a", 20)
    await store.enrolment_put(node("n1"))
    await store.audit_append([request("x")])
    await store.close()
    store = STORES[name](tmp_path)
    await store.open()
    assert await store.token_list() == [structs.replace(token("a"), used_at=20)]
    assert await store.enrolment_list() == [node("n1")]
    assert await store.audit_list(None, 9) == [request("x", seq=1)]
    await store.close()
