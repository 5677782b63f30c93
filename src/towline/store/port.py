"""What a store is: the port that the in-memory store and SQLite (later PostgreSQL) implement.

One suite in ``tests/conformance`` runs on all of them. A store keeps rows; it never decides a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from towline.core.rows import (
    AttemptRow,
    Changes,
    ElementRow,
    EventRow,
    JobRecord,
    JobRow,
    NodeRow,
    PoolSnapshot,
    RangeRow,
    SpecRow,
    TaskRow,
)
from towline.store.access import AccessStore
from towline.store.coordination.rows import CoordinationStore
from towline.store.delivery.rows import DeliveryStore


class Reservation(Struct, frozen=True, kw_only=True):
    """What an idempotency key stands for. ``error``: the answer of a job that was quarantined at submit."""

    namespace: str
    key: str
    digest: str
    job: str
    pool: str
    error: str | None = None


class ElementPage(Struct, kw_only=True):
    """Rows and ranges that touch indexes ``after+1 .. through``, for one page of a task's elements."""

    elements: list[ElementRow]
    ranges: list[RangeRow]
    attempts: list[AttemptRow]


class Sealed(Struct, frozen=True, kw_only=True):
    """A value that the server has encrypted (see server/vault); the store cannot read ``data``.

    ``kind`` is ``secret`` or ``registry``; ``user``, in plain text, belongs to a login. ``version``
    counts the puts under this name, from 1 on; ``updated_at`` is the latest one's, unix ms.
    """

    namespace: str
    kind: str
    name: str
    data: bytes
    user: str | None
    version: int
    updated_at: int


class Store(AccessStore, CoordinationStore, DeliveryStore, Protocol):
    """All methods may be called from the event loop's thread only; they raise StoreError
    where the store fails (of what writes: Unstorable for a value that it never takes), and nothing else but
    what is said."""

    async def open(self) -> None:
        """Create or check the schema. Raises StoreError for a schema that is newer than this build."""
        ...

    async def close(self) -> None: ...

    # --- the leader -----------------------------------------------------------------------------
    async def raise_term(self, pool: str) -> int:
        """Make the pool if there is none, add one to its term, return it. What a new leader does first."""
        ...

    async def load(self, pool: str, term: int) -> tuple[PoolSnapshot, dict[str, str]]:
        """The pool's unfinished part, and the jobs whose rows do not decode (id to what is wrong)
        which are left out of it. Raises StaleTerm."""
        ...

    async def commit(self, pool: str, term: int, commit_no: int, changes: Changes) -> None:
        """Write all changes in one durable transaction that begins with the fence
        (``commit_no`` is the number of the commit before). Raises StaleTerm and Unstorable, having written
        nothing."""
        ...

    # --- idempotency keys -----------------------------------------------------------------------
    async def reserve(self, wanted: Sequence[Reservation]) -> list[Reservation]:
        """Reserve each (namespace, key) that is free; return what stands for each now, in order."""
        ...

    async def reserved(self, namespace: str, key: str) -> Reservation | None:
        """What stands for an idempotency key; None: nothing."""
        ...

    async def release(self, namespace: str, key: str) -> None:
        """Free the key of a request that was refused."""
        ...

    async def answer(self, namespace: str, key: str, error: str) -> None:
        """Keep an error as the answer under the key."""
        ...

    # --- facts, for any server ------------------------------------------------------------------
    async def find_jobs(self, namespace: str, argument: str) -> list[JobRow]:
        """The jobs that a JOB argument can mean, whatever their pools: the one with that id, else the newest
        of that name, else all whose id begins so (at most 10)."""
        ...

    async def jobs(
        self, namespace: str, before: tuple[int, str] | None, limit: int, states: Sequence[str] = ()
    ) -> list[JobRow]:
        """Of all pools, newest first. ``before``: the (seq, id) of the job after which to go on; two pools
        may have given the same seq."""
        ...

    async def job(self, job: str) -> tuple[JobRow, SpecRow] | None: ...

    async def record(self, pool: str, job: str, namespace: str, key: str | None) -> JobRecord | None:
        """What running parts of a job again has to know, in one snapshot with the pool's counters; None
        where there is no such job. ``key``: an idempotency key to look for."""
        ...

    async def tasks(self, job: str) -> list[TaskRow]: ...

    async def elements(self, job: str, task: int, after: int, through: int) -> ElementPage:
        """Everything known of indexes above ``after`` up to ``through``, in order of index (and number)."""
        ...

    async def first_failure(self, job: str) -> ElementRow | None:
        """The failed element that ended first (lowest task position and index among equals)."""
        ...

    async def attempt(self, job: str, task: int, index: int, number: int) -> AttemptRow | None: ...

    async def nodes(self, pool: str) -> list[NodeRow]:
        """All nodes of a pool, forgotten ones too, in order of their ids. One that was forgotten in a pool
        and has been committed by another one since is that one's alone; a node that stands in a pool and is
        not forgotten there is changed by no other pool's commit."""
        ...

    async def find_nodes(self, name: str) -> list[tuple[str, str]]:
        """(id, pool) of the nodes of this id or, where there is none, of this name, in any pool, in order of
        their ids; without those that were forgotten."""
        ...

    async def events(self, stream: str, after: int, limit: int, job: str | None = None) -> list[EventRow]: ...

    async def counters(self, pool: str) -> tuple[int, int]:
        """(term, event_no) of a pool; (0, 0) where there is none."""
        ...

    # --- what is kept encrypted -----------------------------------------------------------------
    async def seal_put(
        self, namespace: str, kind: str, name: str, data: bytes, user: str | None, at_ms: int
    ) -> int:
        """Keep a value under this name, in place of an older one; returns its version."""
        ...

    async def seal_get(self, namespace: str, kind: str, name: str) -> Sealed | None: ...

    async def seal_list(self, namespace: str | None = None, kind: str | None = None) -> list[Sealed]:
        """In order of namespace, kind and name; None: of all namespaces, of all kinds."""
        ...

    async def seal_delete(self, namespace: str, kind: str, name: str) -> bool:
        """False where there was none."""
        ...

    # --- retention ------------------------------------------------------------------------------
    async def expired(self, pool: str, before_ms: int, limit: int) -> list[str]:
        """Up to ``limit`` of the jobs that ended before ``before_ms``, the oldest first: those that
        ``expire`` would delete."""
        ...

    async def expire(self, pool: str, before_ms: int, limit: int) -> int:
        """Delete up to ``limit`` of the jobs that ended before ``before_ms``, the oldest first, with
        all below them; also events and idempotency keys of no job that are older. Works in small
        transactions, so commits need not wait long; returns the number of jobs deleted."""
        ...
