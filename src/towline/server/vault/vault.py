"""Values by (namespace, kind, name), encrypted before the store sees them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from towline.errors import NotFound, OperatorError
from towline.server.vault.key import Damaged, Key, WrongKey, open_key
from towline.store.port import Sealed, Store

KEY_FILE = "vault.key"

_WORDS = {"secret": "secret", "registry": "login of registry", "authority": "cluster's authority"}
_REMEDIES = {"secret": "tow secret set", "registry": "tow registry login"}
_LISTS = {"secret": "tow secret ls", "registry": "tow registry ls"}


class VaultError(OperatorError):
    """A value cannot be read, or the key is not there: a person has to look at it."""


class Entry(Struct, frozen=True, kw_only=True):
    """What may be shown of a value. ``updated_at`` is unix ms."""

    namespace: str
    kind: str
    name: str
    user: str | None
    version: int
    updated_at: int


class Vault:
    """Keeps values in ``store`` under the key in ``key_file``, which is made with the first value.

    The kinds are ``secret`` and ``registry`` (the name is the registry, ``user`` its user).
    """

    def __init__(
        self,
        store: Store,
        key_file: Path,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._key_file = key_file
        self._clock_ms = clock_ms
        self._key: Key | None = None
        self._opening = asyncio.Lock()

    async def put(
        self, namespace: str, kind: str, name: str, value: bytes, *, user: str | None = None
    ) -> int:
        """Keep a value, in place of an older one; returns its version. Raises VaultError."""
        key = await self._opened()
        sealed = key.seal(value, (namespace, kind, name))
        return await self._store.seal_put(namespace, kind, name, sealed, user, self._clock_ms())

    async def add(self, namespace: str, kind: str, name: str, value: bytes) -> bool:
        """Keep a value where there is none; False where there is. Raises VaultError."""
        key = await self._opened()
        sealed = key.seal(value, (namespace, kind, name))
        return await self._store.seal_add(namespace, kind, name, sealed, None, self._clock_ms())

    async def get(self, namespace: str, kind: str, name: str) -> bytes:
        """The value. Raises NotFound, or VaultError where it does not open."""
        return (await self.get_with_user(namespace, kind, name))[0]

    async def get_with_user(self, namespace: str, kind: str, name: str) -> tuple[bytes, str | None]:
        """As ``get``, with the user that belongs to it."""
        row = await self._store.seal_get(namespace, kind, name)
        if row is None:
            raise _none(kind, name)
        key = await self._opened()
        try:
            return key.open(row.data, (namespace, kind, name)), row.user
        except WrongKey:
            again = f"; or set it again: {_REMEDIES[kind]} {name}" if kind in _REMEDIES else ""
            raise VaultError(
                f"The {_WORDS.get(kind, kind)} {name} was kept with another key than the one in "
                f"{self._key_file}: put the old key back (all servers of a store share one: copy it from the "
                f"first of them){again}"
            ) from None
        except Damaged:
            raise VaultError(
                f"The {_WORDS.get(kind, kind)} {name} is damaged in the store: "
                f"set it again: {_REMEDIES.get(kind, 'set')} {name}"
            ) from None

    async def list(self, namespace: str, kind: str) -> list[Entry]:
        """In order of their names."""
        return [_entry(row) for row in await self._store.seal_list(namespace, kind)]

    async def namespaces(self, kind: str) -> tuple[str, ...]:
        """Those that have something of a kind, in order."""
        return tuple(sorted({row.namespace for row in await self._store.seal_list() if row.kind == kind}))

    async def delete(self, namespace: str, kind: str, name: str) -> None:
        """Raises NotFound."""
        if not await self._store.seal_delete(namespace, kind, name):
            shown = f": `{_LISTS[kind]}` shows what there is" if kind in _LISTS else ""
            raise NotFound(f"There is no {_WORDS.get(kind, kind)} {name}{shown}")

    async def _opened(self) -> Key:
        """A missing key is made only where nothing needs the one that was there before."""
        async with self._opening:
            if self._key is None:
                key = await asyncio.to_thread(open_key, self._key_file, create=False)
                if key is None and await self._store.seal_list():
                    raise VaultError(
                        f"The key {self._key_file} is gone, and the store keeps secrets or logins of it: put "
                        "it back (where several servers share the store: copy it from another one), or "
                        "remove them all and set them again (tow secret rm, tow registry logout)."
                    )
                self._key = key or await asyncio.to_thread(open_key, self._key_file, create=True)
            assert self._key is not None
            return self._key


def _none(kind: str, name: str) -> NotFound:
    return NotFound(f"There is no {_WORDS.get(kind, kind)} {name}: {_REMEDIES.get(kind, 'set')} {name}")


def _entry(row: Sealed) -> Entry:
    return Entry(
        namespace=row.namespace,
        kind=row.kind,
        name=row.name,
        user=row.user,
        version=row.version,
        updated_at=row.updated_at,
    )
