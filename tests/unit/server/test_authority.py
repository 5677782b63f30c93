"""The cluster's authority where several servers make it at once: there is one, or a clear end."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from towline.server.access.authority import Authority, open_authority
from towline.server.vault import KEY_FILE, Vault, VaultError, open_key
from towline.store.memory import MemoryStore


class Slow(MemoryStore):
    """Both servers have looked before either has put."""

    def __init__(self) -> None:
        super().__init__()
        self._both = asyncio.Barrier(2)

    async def seal_get(self, namespace: str, kind: str, name: str):  # type: ignore[no-untyped-def]
        found = await super().seal_get(namespace, kind, name)
        if found is None:
            await self._both.wait()
        return found


async def _yes() -> bool:
    return True  # as where the server that was to make it seemed to have died over it


async def _open(store: MemoryStore, home: Path) -> Authority:
    return await open_authority(Vault(store, home / KEY_FILE), is_first=_yes)


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    made = tmp_path / "one", tmp_path / "two"
    for home in made:
        home.mkdir()
    return made


async def test_of_two_that_make_it_at_once_both_have_the_one_that_is_kept(homes: tuple[Path, Path]) -> None:
    open_key(homes[0] / KEY_FILE, create=True)
    shutil.copy(homes[0] / KEY_FILE, homes[1] / KEY_FILE)
    store = Slow()
    first, second = await asyncio.gather(*(_open(store, home) for home in homes))
    assert first.certificate == second.certificate
    assert (await _open(store, homes[0])).certificate == first.certificate


async def test_with_keys_of_their_own_one_of_them_is_told_to_copy_the_others(
    homes: tuple[Path, Path],
) -> None:
    store = Slow()
    opened = await asyncio.gather(*(_open(store, home) for home in homes), return_exceptions=True)
    refused = [error for error in opened if isinstance(error, BaseException)]
    assert len(refused) == 1
    assert isinstance(refused[0], VaultError)
    assert "another key" in str(refused[0]) and "copy it from the first" in str(refused[0])
