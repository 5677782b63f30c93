"""What a server keeps encrypted: bytes under a name, which the store does not look into."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.conformance.stores.registry import DURABLE, STORES

from towline.store.port import Sealed, Store


def sealed(name: str, data: bytes, version: int = 1, **fields: object) -> Sealed:
    values = {"namespace": "default", "kind": "secret", "user": None, "updated_at": 10, **fields}
    return Sealed(name=name, data=data, version=version, **values)  # type: ignore[arg-type]


async def test_a_value_is_kept_byte_by_byte(store: Store) -> None:
    data = bytes(range(256))
    assert await store.seal_get("default", "secret", "token") is None
    assert await store.seal_put("default", "secret", "token", data, None, 10) == 1
    assert await store.seal_get("default", "secret", "token") == sealed("token", data)


async def test_a_newer_value_takes_the_place_of_the_older_one(store: Store) -> None:
    await store.seal_put("default", "registry", "ghcr.io", b"one", "ada", 10)
    assert await store.seal_put("default", "registry", "ghcr.io", b"two", "bob", 20) == 2
    found = await store.seal_get("default", "registry", "ghcr.io")
    assert found == sealed("ghcr.io", b"two", 2, kind="registry", user="bob", updated_at=20)


async def test_kinds_and_namespaces_have_names_of_their_own(store: Store) -> None:
    await store.seal_put("b", "secret", "x", b"1", None, 10)
    await store.seal_put("a", "secret", "x", b"2", None, 10)
    await store.seal_put("a", "secret", "w", b"3", None, 10)
    await store.seal_put("a", "registry", "x", b"4", "ada", 10)

    async def data(*which: str | None) -> list[bytes]:
        return [row.data for row in await store.seal_list(*which)]

    assert await data() == [b"4", b"3", b"2", b"1"]
    assert await data("a") == [b"4", b"3", b"2"]
    assert await data(None, "secret") == [b"3", b"2", b"1"]
    assert await data("a", "secret") == [b"3", b"2"]
    assert await data("c") == []


async def test_what_is_deleted_is_gone_and_begins_anew(store: Store) -> None:
    await store.seal_put("default", "secret", "token", b"one", None, 10)
    await store.seal_put("default", "registry", "token", b"other", None, 10)
    assert await store.seal_delete("default", "secret", "token")
    assert not await store.seal_delete("default", "secret", "token")
    assert await store.seal_get("default", "secret", "token") is None
    assert await store.seal_get("default", "registry", "token") is not None
    assert await store.seal_put("default", "secret", "token", b"two", None, 20) == 1


async def test_of_many_at_once_each_gets_a_version_of_its_own(store: Store) -> None:
    puts = (store.seal_put("default", "secret", "token", b"%d" % n, None, n) for n in range(50))
    versions = await asyncio.gather(*puts)
    assert sorted(versions) == list(range(1, 51))
    found = await store.seal_get("default", "secret", "token")
    assert found is not None
    assert found.data == b"%d" % versions.index(50)


@pytest.mark.parametrize("name", DURABLE)
async def test_it_is_there_still_when_the_store_is_opened_again(name: str, tmp_path: Path) -> None:
    store = STORES[name](tmp_path)
    await store.open()
    await store.seal_put("default", "secret", "token", b"\0\xff", None, 10)
    await store.close()
    store = STORES[name](tmp_path)
    await store.open()
    assert await store.seal_get("default", "secret", "token") == sealed("token", b"\0\xff")
    await store.close()
