"""Which pool a request is about: the layer in front of all others that know pools.

A job's pool is that of its row, a node's that of its row or enrolment; a submission's stands in the job, and
for ``any`` the pools are asked how the job would fit. Whatever names no pool is the home's: its queues, and
what belongs to no pool. A server that passes a request on has settled it, and says so.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast
from urllib.parse import parse_qs

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from towline.core.routing import Offer, best
from towline.errors import InvalidDocument, NotFound, RequestError, StoreError, Unavailable
from towline.identity.roles import Principal, Role
from towline.model.names import ANY_POOL
from towline.server.access.guard import PRINCIPAL, namespace_in
from towline.server.access.rules import rule_of
from towline.server.intake import PREPARED, prepared_from
from towline.server.peers.callers import POOL
from towline.server.process.refusing import not_now, refuse
from towline.server.seats.asking import GATHERED
from towline.store.port import Store

BY_JOB = re.compile(r"/v1/jobs/([^/]+)")
BY_NODE = re.compile(r"/v1/nodes/([^/]+)")
BY_POOL = re.compile(r"/v1/pools/([^/]+)/?\Z")
OF_A_POOL = re.compile(r"/v1/(nodes|queues|images|events|usage|gc)(/|\Z)")
"""Where ``?pool=`` is heeded. A job is of its pool alone, and what belongs to no pool is the home's, whatever
a request names."""
SUBMITS = frozenset({"/v1/jobs", "/v1/plan"})
REMEMBERED = 50_000
"""Of so many jobs it is known without a look which pool they are of: that never changes."""


class Seated(Protocol):
    """Which pools there are; seats.py has them."""

    @property
    def home_pool(self) -> str: ...
    def names(self) -> list[str]: ...
    def known(self, pool: str) -> str: ...


Look = Callable[[], Awaitable[None]]
"""Hears of the pools that other servers have made. Raises StoreError."""


class Asked(Protocol):
    """How pools are asked; asking.py does."""

    async def offers(self, scope: Scope, pools: Sequence[str], body: bytes) -> list[Offer]: ...
    async def gather(self, scope: Scope, pools: Sequence[str], send: Send) -> None: ...


def routed(app: ASGIApp, routing: Routing) -> ASGIApp:
    """``app``, which finds the pool of each request in its state."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or POOL in scope["state"]:
            await app(scope, receive, send)
            return
        try:
            if routing.is_of_all(scope):
                await routing.gather(scope, send)
                return
            receive = await routing.settle(scope, receive)
        except NotFound as error:
            await refuse(scope, send, 404, str(error))
        except (StoreError, Unavailable) as error:
            await not_now(scope, send, str(error))
        else:
            await app(scope, receive, send)

    return door


class Routing:
    """``node_pool`` names the pool that a node was enrolled for, by its id or name, None where it was not.
    ``body_limit`` is the most bytes of a submission. ``look``: where other servers make pools too."""

    def __init__(
        self,
        seats: Seated,
        store: Store,
        asking: Asked,
        node_pool: Callable[[str], str | None],
        body_limit: int,
        look: Look | None = None,
    ) -> None:
        self._look = look
        self._seats = seats
        self._store = store
        self._asking = asking
        self._node_pool = node_pool
        self._body_limit = body_limit
        self._jobs: OrderedDict[tuple[str, str], str] = OrderedDict()

    # --- what is asked of all -----------------------------------------------------------------------
    def is_of_all(self, scope: Scope) -> bool:
        if scope["path"] not in GATHERED or len(self._seats.names()) == 1:
            return False
        if cast("dict[str, Any]", scope).get("method") not in ("GET", "HEAD"):
            return False  # as the API will say
        return _is_somebody(scope) and not (_query(scope).keys() & {"pool", "job"})

    async def gather(self, scope: Scope, send: Send) -> None:
        await self._asking.gather(scope, self._seats.names(), send)

    # --- which one ----------------------------------------------------------------------------------
    async def settle(self, scope: Scope, receive: Receive) -> Receive:
        """Put the pool's name into the request's state; returns what its body is to be read from. Raises
        NotFound for a pool that is named and not there, StoreError, Unavailable."""
        state, path = scope["state"], scope["path"]
        state[POOL] = self._seats.home_pool
        if not _is_somebody(scope):
            return receive  # nobody is told which pools there are; the API refuses him
        if (named := self._named(scope)) is not None:
            state[POOL] = await self._known(named)
        elif len(self._seats.names()) == 1:
            return receive
        elif cast("dict[str, Any]", scope).get("method") == "POST" and path in SUBMITS:
            return await self._submission(scope, receive)
        elif (job := _job_in(scope)) is not None:
            state[POOL] = await self._of_job(scope, job) or self._seats.home_pool
        elif (node := _node_in(scope)) is not None:
            state[POOL] = await self._of_node(node) or self._seats.home_pool
        return receive

    def _named(self, scope: Scope) -> str | None:
        found = BY_POOL.match(scope["path"])
        if found is not None:
            return found[1]
        if OF_A_POOL.match(scope["path"]) is None:
            return None
        asked = _query(scope)
        if (given := asked.get("pool")) is not None:
            return given
        cursor = asked.get("cursor", "") if scope["path"] == "/v1/events" else ""
        return cursor.rpartition(":")[0] or None

    async def _known(self, pool: str) -> str:
        """The name of a pool that is there, which this server may not have heard of yet. Raises NotFound,
        StoreError."""
        if self._look is not None and pool not in self._seats.names():
            await self._look()
        return self._seats.known(pool)

    async def _of_job(self, scope: Scope, job: str) -> str | None:
        try:
            namespace = namespace_in(scope)
        except RequestError:
            return None  # as the API will say
        where = (namespace, job)
        if (pool := self._jobs.get(where)) is not None:
            return pool
        rows = await self._store.find_jobs(namespace, job)
        if len(rows) != 1:
            return None
        if rows[0].id == job:
            self._jobs[where] = rows[0].pool
            if len(self._jobs) > REMEMBERED:
                self._jobs.popitem(last=False)
        return rows[0].pool

    async def _of_node(self, name: str) -> str | None:
        """One that has joined is in its pool's rows; one that has enrolled and never come is not. Raises
        NotFound where nodes of several pools are meant."""
        pools = sorted({pool for _, pool in await self._store.find_nodes(name)})
        if len(pools) > 1:
            raise NotFound(
                f"There are nodes {name!r} in the pools {', '.join(pools)}: say which by its id, or by pool."
            )
        return pools[0] if pools else self._node_pool(name)

    # --- submissions --------------------------------------------------------------------------------
    async def _submission(self, scope: Scope, receive: Receive) -> Receive:
        """The pool that a job names, or of those that it leaves open the one that takes it best. A repeat
        goes where the key says, whatever the pools say by now."""
        try:
            namespace = namespace_in(scope)
        except RequestError:
            return receive  # as the API will say
        wanted = rule_of("POST", scope["path"])
        if not isinstance(wanted, Role) or not scope["state"][PRINCIPAL].may(wanted):
            return receive  # likewise: nobody is asked for who may not
        body, receive = await _read(receive, self._body_limit)
        if body is None:
            return receive
        try:
            prepared = await prepared_from(body)
        except InvalidDocument:
            return receive  # as the API will say
        scope["state"][PREPARED] = prepared
        known = self._seats.names()
        named = known if prepared.spec.pool == (ANY_POOL,) else list(prepared.spec.pool)
        open_to = [pool for pool in named if pool in known]
        if len(open_to) < len(named) or not named:
            return receive  # the home's leader says which are not there
        only = open_to[0] if len(open_to) == 1 else None
        scope["state"][POOL] = only or await self._choose(scope, namespace, open_to, body)
        return receive

    async def _choose(self, scope: Scope, namespace: str, pools: Sequence[str], body: bytes) -> str:
        key = dict(scope["headers"]).get(b"idempotency-key", b"").decode("latin-1")
        if key and scope["path"] != "/v1/plan":
            stands = await self._store.reserved(namespace, key)
            if stands is not None:
                return await self._known(stands.pool)
        found = best(await self._asking.offers(scope, pools, body), key or secrets.token_hex(8))
        if found is None:
            raise Unavailable("None of the pools that the job may run in answers: repeat the request.")
        return found


def _is_somebody(scope: Scope) -> bool:
    """Whether it is asked with a role: a node has none, and asks nothing that is about a pool."""
    who = cast("Principal | None", scope["state"].get(PRINCIPAL))
    return who is not None and who.role is not None


def _query(scope: Scope) -> dict[str, str]:
    text = scope["query_string"].decode("latin-1")
    return {name: values[-1] for name, values in parse_qs(text).items()} if text else {}


def _job_in(scope: Scope) -> str | None:
    found = BY_JOB.match(scope["path"])
    if found is not None:
        return found[1]
    return _query(scope).get("job") if scope["path"] in ("/v1/usage", "/v1/events") else None


def _node_in(scope: Scope) -> str | None:
    found = BY_NODE.match(scope["path"])
    if found is not None:
        return found[1]
    return _query(scope).get("node") if scope["path"].startswith("/v1/images") else None


async def _read(receive: Receive, limit: int) -> tuple[bytes | None, Receive]:
    """A request's body, and where to read it from again; None where it is larger than it may be, or the
    caller has gone."""
    messages: list[Message] = []
    size, whole = 0, False
    while not whole and size <= limit:
        message = await receive()
        messages.append(message)
        given = cast("dict[str, Any]", message)
        if given["type"] != "http.request":
            break
        size += len(given.get("body", b""))
        whole = not given.get("more_body", False)

    async def again() -> Any:
        return messages.pop(0) if messages else await receive()

    if not whole or size > limit:
        return None, again
    return b"".join(cast("dict[str, Any]", message).get("body", b"") for message in messages), again
