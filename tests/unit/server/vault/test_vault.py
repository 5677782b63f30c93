# ruff: noqa: ASYNC240 - small files of the test's own
"""The vault: what is kept can be had again, and by nobody without the key or under another name."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from towline.errors import NotFound, OperatorError
from towline.server.vault import Entry, Vault, VaultError
from towline.store.sqlite import SqliteStore

PASSWORD = b"correct horse battery staple"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "state.db")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "vault.key"


@pytest.fixture
def vault(store: SqliteStore, key_file: Path) -> Vault:
    return Vault(store, key_file, lambda: 77)


async def test_what_is_kept_can_be_had_again_also_by_the_next_server(
    vault: Vault, store: SqliteStore, key_file: Path
) -> None:
    assert await vault.put("default", "registry", "ghcr.io", PASSWORD, user="ada") == 1
    assert await vault.get("default", "registry", "ghcr.io") == PASSWORD
    again = Vault(store, key_file)
    assert await again.get_with_user("default", "registry", "ghcr.io") == (PASSWORD, "ada")


async def test_a_list_shows_names_and_no_values(vault: Vault) -> None:
    await vault.put("default", "secret", "b", PASSWORD)
    await vault.put("default", "secret", "a", b"")
    await vault.put("default", "registry", "ghcr.io", PASSWORD, user="ada")
    entries = await vault.list("default", "secret")
    assert entries == [
        Entry(namespace="default", kind="secret", name=name, user=None, version=1, updated_at=77)
        for name in "ab"
    ]
    assert await vault.get("default", "secret", "a") == b""


async def test_nothing_on_the_disk_is_readable(vault: Vault, store: SqliteStore, tmp_path: Path) -> None:
    await vault.put("default", "secret", "token", PASSWORD)
    await vault.put("default", "secret", "same", PASSWORD)
    await store.close()
    for file in tmp_path.iterdir():
        assert PASSWORD not in file.read_bytes(), file


async def test_equal_values_look_different(vault: Vault, store: SqliteStore) -> None:
    await vault.put("default", "secret", "a", PASSWORD)
    await vault.put("default", "secret", "b", PASSWORD)
    one, other = await store.seal_list()
    assert one.data[9:] != other.data[9:]


async def test_the_key_is_its_owners_alone_and_made_once(vault: Vault, key_file: Path) -> None:
    assert not key_file.exists()
    await asyncio.gather(*(vault.put("default", "secret", f"s{n}", PASSWORD) for n in range(10)))
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert not list(key_file.parent.glob("*.new"))
    key = key_file.read_bytes()
    await vault.put("default", "secret", "more", PASSWORD)
    assert key_file.read_bytes() == key


@pytest.mark.parametrize("moved_to", [("default", "secret", "other"), ("mine", "secret", "token")])
async def test_a_value_that_was_moved_to_another_name_does_not_open(
    vault: Vault, store: SqliteStore, moved_to: tuple[str, str, str]
) -> None:
    await vault.put("default", "secret", "token", PASSWORD)
    (row,) = await store.seal_list()
    await store.seal_put(*moved_to, row.data, None, 1)
    with pytest.raises(VaultError, match="is damaged in the store"):
        await vault.get(*moved_to)


async def test_every_changed_byte_is_seen(vault: Vault, store: SqliteStore) -> None:
    await vault.put("default", "secret", "token", b"x")
    (row,) = await store.seal_list()
    for at in range(len(row.data)):
        changed = bytearray(row.data)
        changed[at] ^= 1
        await store.seal_put("default", "secret", "token", bytes(changed), None, 1)
        with pytest.raises(VaultError):
            await vault.get("default", "secret", "token")
    for length in range(len(row.data)):
        await store.seal_put("default", "secret", "token", row.data[:length], None, 1)
        with pytest.raises(VaultError, match=r"set it again: tow secret set token"):
            await vault.get("default", "secret", "token")


async def test_another_key_is_told_from_damage(vault: Vault, store: SqliteStore, key_file: Path) -> None:
    await vault.put("default", "registry", "ghcr.io", PASSWORD)
    key_file.unlink()
    other = Vault(store, key_file)
    with pytest.raises(VaultError, match=r"vault\.key is gone"):
        await other.get("default", "registry", "ghcr.io")
    with pytest.raises(VaultError, match=r"vault\.key is gone"):
        await other.put("default", "secret", "new", b"x")
    assert not key_file.exists()
    key_file.write_text("towline-key-1 " + "ab" * 32 + "\n")
    key_file.chmod(0o600)
    with pytest.raises(VaultError, match=r"with another key .*tow registry login ghcr\.io"):
        await other.get("default", "registry", "ghcr.io")


async def test_a_key_is_made_anew_when_nothing_needs_the_old_one(
    vault: Vault, store: SqliteStore, key_file: Path
) -> None:
    await vault.put("default", "secret", "token", PASSWORD)
    await vault.delete("default", "secret", "token")
    key_file.unlink()
    other = Vault(store, key_file)
    await other.put("default", "secret", "token", b"new")
    assert await other.get("default", "secret", "token") == b"new"


@pytest.mark.parametrize("content", ["", "towline-key-1 ab", "x" * 500, "towline-key-1 " + "zz" * 32])
async def test_a_file_that_is_no_key_is_refused(vault: Vault, key_file: Path, content: str) -> None:
    key_file.write_text(content)
    key_file.chmod(0o600)
    with pytest.raises(OperatorError, match="is no key of a server"):
        await vault.put("default", "secret", "token", PASSWORD)


async def test_a_key_that_others_may_read_is_refused(vault: Vault, key_file: Path) -> None:
    await vault.put("default", "secret", "token", PASSWORD)
    key_file.chmod(0o640)
    with pytest.raises(OperatorError, match=r"mode 640\): chmod 600"):
        await Vault(vault._store, key_file).get("default", "secret", "token")


async def test_what_is_not_there_is_told_with_a_remedy(vault: Vault) -> None:
    with pytest.raises(NotFound, match="There is no secret token: tow secret set token"):
        await vault.get("default", "secret", "token")
    with pytest.raises(NotFound, match=r"There is no login of registry ghcr\.io: `tow registry ls` shows"):
        await vault.delete("default", "registry", "ghcr.io")
