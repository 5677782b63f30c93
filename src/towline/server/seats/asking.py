"""Requests that this server makes for a caller, through its own layers: each goes to the leader of its pool,
here or elsewhere, with the caller's own rights. So what is asked of all pools is put together here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from towline.core.routing import Offer
from towline.errors import Unavailable
from towline.server.peers.callers import PASSED_ON, POOL

T = TypeVar("T")

MOMENT_S = 0.3
"""So long all pools have to say how a job would fit."""
PATIENCE_S = 2.0
"""So long a pool may take to say how a job would fit, or how it stands."""
OFFER = "/v1/offer"
GATHERED = {"/v1/nodes": ("nodes",), "/v1/usage": ("nodes", "elements")}
"""What is asked of all pools where none is named, with the lists of the answer."""
NO_NODE = "urn:towline:problem:no_node"
_OURS = "towline_"
_OF_A_BODY = (b"content-length", b"transfer-encoding", b"content-type")
_KEPT = ("type", "asgi", "http_version", "scheme", "root_path", "headers", "client", "server", "extensions")


class Answered(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Asking:
    """``app`` is set once it is built: the layers behind the one that finds a request's pool."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def ask(
        self, scope: Scope, pool: str, method: str, path: str, query: bytes = b"", body: bytes = b""
    ) -> Answered:
        """What the leader of a pool answers to the caller of ``scope``. Raises Unavailable where it is gone
        in the middle of its answer."""
        assert self.app is not None
        answer = _Answer()
        try:
            await self.app(_made(scope, pool, method, path, query, body), _receive(body), answer.send)
        except OSError as error:
            raise Unavailable(f"The pool {pool} does not answer: repeat the request ({error}).") from None
        return answer.whole

    async def offers(self, scope: Scope, pools: Iterable[str], body: bytes) -> list[Offer]:
        """What the pools say of a submission. All have a moment; after it the first that says that the job
        fits is enough: a leader that is frozen delays nobody for long."""
        asking = {asyncio.create_task(self._in_time(scope, pool, "POST", OFFER, body)) for pool in pools}
        try:
            done, late = await asyncio.wait(asking, timeout=MOMENT_S)
            while late and not any(offer.fits for offer in _offers(done)):
                more, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
                done |= more
        finally:
            for task in asking:
                task.cancel()
        return _offers(done)

    async def views(self, scope: Scope, pools: Sequence[str], kind: type[Any]) -> dict[str, Any]:
        """How pools stand, by their names, as far as they answer in time."""
        answers = await asyncio.gather(
            *(self._in_time(scope, pool, "GET", f"/v1/pools/{pool}", b"") for pool in pools)
        )
        views = {pool: _read(one, kind) for pool, one in zip(pools, answers, strict=True)}
        return {pool: view for pool, view in views.items() if view is not None}

    async def _in_time(self, scope: Scope, pool: str, method: str, path: str, body: bytes) -> Answered | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.ask(scope, pool, method, path, body=body)
        except (TimeoutError, Unavailable):
            return None

    async def gather(self, scope: Scope, pools: Iterable[str], send: Send) -> None:
        """The answers of all pools as one. Where one refuses, its answer is the whole: what is shown without
        a pool would be taken for all there is. Only a pool without nodes has nothing to say of usage. Raises
        Unavailable."""
        path, query = scope["path"], scope["query_string"]
        answers = await asyncio.gather(*(self.ask(scope, pool, "GET", path, query) for pool in pools))
        good = [one for one in answers if one.status == 200]
        bad = [one for one in answers if one.status != 200]
        if refusing := [one for one in bad if not good or not _has_no_node(one)]:
            await _pass(refusing[0], send)
            return
        merged: dict[str, list[msgspec.Raw]] = {name: [] for name in GATHERED[path]}
        for one in good:
            found = msgspec.json.decode(one.body, type=dict[str, msgspec.Raw])
            for name in merged:
                merged[name] += msgspec.json.decode(found[name], type=list[msgspec.Raw])
        body = msgspec.json.encode(merged)
        headers = [(key, value) for key, value in good[0].headers if key != b"content-length"]
        await _pass(Answered(200, [*headers, (b"content-length", b"%d" % len(body))], body), send)


def _offers(done: Iterable[asyncio.Task[Answered | None]]) -> list[Offer]:
    offers = [_read(task.result(), Offer) for task in done]
    return sorted((offer for offer in offers if offer is not None), key=lambda offer: offer.pool)


def _read(answer: Answered | None, kind: type[T]) -> T | None:
    """None where there is no answer, or one that only another version would understand."""
    try:
        if answer is None or answer.status != 200:
            return None
        return msgspec.json.decode(answer.body, type=kind)
    except msgspec.DecodeError:
        return None


def _has_no_node(answer: Answered) -> bool:
    """Whether a pool that is led refuses since no node of it is connected."""
    try:
        return answer.status == 503 and msgspec.json.decode(answer.body)["type"] == NO_NODE
    except (msgspec.DecodeError, KeyError, TypeError):
        return False


class _Answer:
    """Takes an answer in."""

    def __init__(self) -> None:
        self._status = 503
        self._headers: list[tuple[bytes, bytes]] = []
        self._parts: list[bytes] = []

    async def send(self, message: Message) -> None:
        given = cast("dict[str, Any]", message)
        if given["type"] == "http.response.start":
            self._status, self._headers = given["status"], list(given.get("headers", ()))
        elif given["type"] == "http.response.body":
            self._parts.append(given.get("body", b""))

    @property
    def whole(self) -> Answered:
        return Answered(self._status, self._headers, b"".join(self._parts))


def _made(scope: Scope, pool: str, method: str, path: str, query: bytes, body: bytes) -> Scope:
    """A request of the same caller. What the API keeps in a scope while it works is not taken along, nor that
    another server has passed the caller's own request on: this one has another leader."""
    given = cast("dict[str, Any]", scope)
    made = {key: given[key] for key in _KEPT if key in given}
    headers = [(key, value) for key, value in given["headers"] if key not in _OF_A_BODY]
    if body:
        headers += [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    made |= {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": headers,
        "state": {
            key: value for key, value in given["state"].items() if key.startswith(_OURS) and key != PASSED_ON
        },
    }
    made["state"][POOL] = pool
    return cast("Scope", made)


def _receive(body: bytes) -> Receive:
    """The body, and then a caller who stays."""
    told = asyncio.Event()

    async def receive() -> Any:
        if told.is_set():
            await asyncio.Event().wait()
        told.set()
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _pass(answer: Answered, send: Send) -> None:
    await send(
        cast("Any", {"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    )
    await send(cast("Any", {"type": "http.response.body", "body": answer.body, "more_body": False}))
