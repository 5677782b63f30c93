"""What several servers of one database share: the store, and the file with the vault's key."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from towline.server.access.cluster import open_access
from towline.server.vault import KEY_FILE, Vault
from towline.server.vault.vault import VaultError
from towline.store.postgresql import PostgresStore


@pytest.fixture
def homes(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("one", "two", "three")]
    for home in made:
        home.mkdir()
    return made


async def test_servers_with_one_key_have_one_authority(store: PostgresStore, homes: list[Path]) -> None:
    """Three start at once, on a database that is empty."""
    await Vault(store, homes[0] / KEY_FILE).put("", "secret", "s", b"value")
    for home in homes[1:]:
        shutil.copy(homes[0] / KEY_FILE, home / KEY_FILE)
    others = [PostgresStore(store.address.url) for _ in homes[1:]]
    for other in others:
        await other.open()
    stores = [store, *others]
    opened = await asyncio.gather(
        *(open_access(each, Vault(each, home / KEY_FILE)) for each, home in zip(stores, homes, strict=True))
    )
    assert len({access.authority.certificate for access in opened}) == 1
    assert await Vault(others[0], homes[1] / KEY_FILE).get("", "secret", "s") == b"value"
    for other in others:
        await other.close()


async def test_a_server_without_the_key_is_refused(store: PostgresStore, homes: list[Path]) -> None:
    await open_access(store, Vault(store, homes[0] / KEY_FILE))
    with pytest.raises(VaultError, match=r"copy it from another"):
        await open_access(store, Vault(store, homes[1] / KEY_FILE))
    (homes[2] / KEY_FILE).touch(mode=0o600)
    (homes[2] / KEY_FILE).write_text(f"towline-key-1 {'ab' * 32}\n")
    with pytest.raises(
        VaultError, match=r"cluster's authority .* another key .*all servers of a store share one"
    ):
        await open_access(store, Vault(store, homes[2] / KEY_FILE))
