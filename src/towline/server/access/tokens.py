"""API tokens and join tokens of a cluster: made, listed, taken back; and whose a shown one is."""

from __future__ import annotations

import time
from collections.abc import Callable

from towline.errors import NotFound, RequestError, StoreError
from towline.identity import tokens
from towline.identity.roles import EVERYWHERE, WORDS, Principal
from towline.server.access.held_rows import HeldRows
from towline.store.access import TokenRow
from towline.store.port import Store

API, JOIN = "api", "join"
MAX_NAME = 100
LONGEST_JOIN_MS = 24 * 3600 * 1000


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Tokens:
    """All tokens are held in memory, as digests: a request costs no read of the store."""

    def __init__(self, store: Store, clock_ms: Callable[[], int] = now_ms) -> None:
        self._store = store
        self._clock_ms = clock_ms
        self._rows: HeldRows[TokenRow] = HeldRows()

    async def load(self) -> None:
        await self._rows.read(self._store.token_list, lambda row: row.id)

    async def create(
        self, name: str, role: str, namespace: str, lifetime_ms: int | None
    ) -> tuple[TokenRow, str]:
        """A new API token, and its text, which nobody can show again. Raises RequestError."""
        if role not in WORDS:
            raise RequestError(f"role is {role!r}: the roles are {', '.join(WORDS)}")
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise RequestError(f"name is {name!r}: give 1 to {MAX_NAME} printable characters")
        if any(row.name == name and row.kind == API for row in self._rows.values()):
            raise RequestError(f"there is a token named {name} already: take another name, or remove it")
        return await self._keep(API, name, role, namespace, lifetime_ms)

    async def create_join(self, lifetime_ms: int, pool: str) -> tuple[TokenRow, str]:
        """A token that enrols one node of a pool once. Raises RequestError."""
        if not 0 < lifetime_ms <= LONGEST_JOIN_MS:
            raise RequestError("the lifetime of a join token is above 0 and at most 24h")
        return await self._keep(JOIN, "", "", EVERYWHERE, lifetime_ms, pool)

    async def _keep(
        self, kind: str, name: str, role: str, namespace: str, lifetime_ms: int | None, pool: str = ""
    ) -> tuple[TokenRow, str]:
        made, at = tokens.mint(), self._clock_ms()
        row = TokenRow(
            id=made.id,
            kind=kind,
            name=name,
            role=role,
            namespace=namespace,
            digest=made.digest,
            created_at=at,
            expires_at=None if lifetime_ms is None else at + lifetime_ms,
            pool=pool,
        )
        await self._store.token_put(row)
        self._rows[row.id] = row
        return row, made.text

    def list(self) -> list[TokenRow]:
        """API tokens in order of their names, expired ones too."""
        return sorted((row for row in self._rows.values() if row.kind == API), key=lambda row: row.name)

    def joins(self) -> list[TokenRow]:
        """Join tokens that are still worth something, in the order in which they were made."""
        rows = [row for row in self._rows.values() if row.kind == JOIN and self._is_open(row)]
        return sorted(rows, key=lambda row: (row.created_at, row.id))

    async def delete(self, which: str, within: str | None = None) -> TokenRow:
        """Take back the API token of this name or id, or the join token of this id: it is worth nothing
        from now on. ``within``: only one of this namespace. Raises NotFound."""
        for row in self._rows.values():
            if within not in (None, row.namespace):
                continue
            if which == row.id or (row.kind == API and which == row.name):
                await self._store.token_delete(row.id)
                self._rows.drop(row.id)
                return row
        raise NotFound(f"There is no token {which!r}: tow token ls shows all.")

    def principal(self, text: str) -> Principal | None:
        """Whose API token this is; None where it is none, or has expired."""
        row = self._genuine(text, API)
        if row is None:
            return None
        return Principal(name=f"token {row.name}", role=WORDS[row.role], namespace=row.namespace)

    def may_be_new(self, text: str) -> bool:
        """Whether it looks like a token, and like none that was known here."""
        id = tokens.id_of(text)
        return id is not None and id not in self._rows

    def opens_join(self, text: str) -> bool:
        """Whether a join token is still worth something."""
        return self._genuine(text, JOIN) is not None

    async def use_join(self, text: str) -> TokenRow | None:
        """Use up a join token. None where it is none, was used, or has expired."""
        row = self._genuine(text, JOIN)
        if row is None:
            return None
        self._rows.drop(row.id)
        try:
            return row if await self._store.token_use(row.id, self._clock_ms()) else None
        except StoreError:
            self._rows[row.id] = row  # the store knows whether it was used, also the next time
            raise

    def _genuine(self, text: str, kind: str) -> TokenRow | None:
        row = self._rows.get(tokens.id_of(text) or "")
        if row is None or row.kind != kind or not self._is_open(row):
            return None
        return row if tokens.is_genuine(text, row.digest) else None

    def _is_open(self, row: TokenRow) -> bool:
        return row.used_at is None and (row.expires_at is None or row.expires_at > self._clock_ms())
