"""Nodes that may open a link: enrolled with a join token, renewed with the certificate they have."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from towline.errors import Conflict, Forbidden, NotFound, RequestError, Unavailable
from towline.server.access.held_rows import HeldRows
from towline.server.access.tokens import Tokens, now_ms
from towline.store.access import EnrolmentRow
from towline.store.port import Store

if TYPE_CHECKING:
    from towline.server.access.authority import Authority  # loads X.509, which one machine alone needs not

_NODE = re.compile(r"node-[0-9a-f]{16}\Z")
MAX_NAME = 253


class Enrolled(Struct, frozen=True, kw_only=True):
    """A node's certificate and that of its authority, PEM; ``expires_at`` is unix ms."""

    certificate: bytes
    authority: bytes
    expires_at: int


async def _is_free(_: str) -> bool:
    return False


class Enrolments:
    """All enrolments are held in memory: a link costs no read of the store."""

    def __init__(
        self, store: Store, authority: Authority, tokens: Tokens, clock_ms: Callable[[], int] = now_ms
    ) -> None:
        self._store = store
        self._authority = authority
        self._tokens = tokens
        self._clock_ms = clock_ms
        self._rows: HeldRows[EnrolmentRow] = HeldRows()

    async def load(self) -> None:
        await self._rows.read(self._store.enrolment_list, lambda row: row.node)

    async def enrol(
        self,
        token: str,
        node: str,
        name: str,
        request: bytes,
        is_taken: Callable[[str], Awaitable[bool]] = _is_free,
    ) -> tuple[Enrolled, str]:
        """Give a machine its first certificate; returns the join token's id too. ``is_taken``: whether an
        id is that of a node which is none by enrolment. Raises Forbidden for a token that is worth nothing,
        RequestError where something else is wrong; the token is not used up then."""
        if not self._tokens.opens_join(token):
            raise _worthless()
        if not _NODE.match(node):
            raise RequestError(f"node is {node[:100]!r}: it is node- and 16 hexadecimal digits")
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
            raise RequestError(f"name is {name[:100]!r}: give 1 to {MAX_NAME} printable characters")
        at = self._clock_ms()  # not after the certificate's own time: see ``admits``
        certificate, expires_at = self._authority.node(request, node)
        if node in self._rows:
            await self.load()  # another server may have forgotten it a moment ago: the leader of its pool
        self._must_be_new(node)
        if await is_taken(node):
            raise Conflict(
                f"Node {node} is one of this cluster already, without a link: a join link makes another "
                "machine a node. Where it is gone for good, run `tow node forget` for it first."
            )
        link = await self._tokens.use_join(token)
        if link is None:
            raise _worthless()
        self._must_be_new(node)  # another link may have enrolled it at the same moment
        row = EnrolmentRow(node=node, name=name, enrolled_at=at, expires_at=expires_at, pool=link.pool)
        return await self._keep(row, certificate), link.id

    def _must_be_new(self, node: str) -> None:
        if node in self._rows:
            raise Conflict(
                f"Node {node} is enrolled already: where its certificate is lost, run "
                f"`tow node forget {node}` first."
            )

    async def renew(self, node: str, request: bytes) -> Enrolled:
        """Give an enrolled node its next certificate. Raises NotFound, RequestError, and Unavailable where
        another server has changed its enrolment meanwhile."""
        row = self._rows.get(node)
        if row is None:
            raise NotFound(f"Node {node} is not enrolled.")
        at = min(row.enrolled_at, self._clock_ms())  # this machine's clock may have been set back
        certificate, expires_at = self._authority.node(request, node)
        fresh = structs.replace(row, enrolled_at=at, expires_at=expires_at)
        if not await self._store.enrolment_renew(node, row.enrolled_at, at, expires_at):
            # The leader of its pool may have forgotten it: that is not to be undone here.
            await self.load()
            raise Unavailable(f"Node {node} has just been forgotten, or has enrolled again.")
        if self._rows.get(node) is row:
            self._rows[node] = fresh
        return self._enrolled(fresh, certificate)

    async def _keep(self, row: EnrolmentRow, certificate: bytes) -> Enrolled:
        """First in memory: where the node is forgotten meanwhile, that has the last word in both."""
        is_new = row.node not in self._rows
        self._rows[row.node] = row
        try:
            await self._store.enrolment_put(row)
        except BaseException:
            if is_new:
                self._rows.drop(row.node)
            raise
        return self._enrolled(row, certificate)

    def _enrolled(self, row: EnrolmentRow, certificate: bytes) -> Enrolled:
        return Enrolled(
            certificate=certificate, authority=self._authority.certificate, expires_at=row.expires_at
        )

    def admits(self, node: str, issued_at_ms: int) -> bool:
        """Whether a node that shows a certificate of the authority, made at this time, is a member: one of
        before it was forgotten and has enrolled again opens nothing."""
        row = self._rows.get(node)
        return row is not None and issued_at_ms >= row.enrolled_at // 1000 * 1000

    def find(self, name: str) -> str | None:
        """The id of the enrolled node of this id or name; None where there is none, or several."""
        if name in self._rows:
            return name
        found = [row.node for row in self._rows.values() if row.name == name]
        return found[0] if len(found) == 1 else None

    def pool_of(self, name: str) -> str | None:
        """The pool that the node of this id or name has enrolled for; None where there is no such node, or
        several, or it enrolled before there were pools to choose."""
        node = self.find(name)
        return None if node is None else self._rows[node].pool or None

    async def forget(self, node: str) -> bool:
        """Its certificate is worth nothing from now on. False where it was not enrolled."""
        self._rows.drop(node)
        try:
            return await self._store.enrolment_delete(node)
        finally:
            self._rows.drop(node)  # it may have been read again meanwhile


def _worthless() -> Forbidden:
    return Forbidden(
        "The join token is unknown, was used, or has expired: make another one with "
        "`tow token create --join`."
    )
