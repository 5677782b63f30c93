"""What a node asks its server of artifacts. All of it blocks, and may be called from several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx2
import msgspec
from msgspec import Struct

from towline.wire import manifest as wire
from towline.wire.manifest import InputElements, Kept, Manifest

TIMEOUT_S = 30.0
_CONFLICT, _BAD_REQUEST = 409, 400
_FOR_NOW = (401, 408, 429)
"""Refusals that say nothing of the request itself: a certificate may be renewed, a server busy."""


class NotNow(Exception):
    """The server cannot be reached, or does not take it now: ask again later."""


class Refused(Exception):
    """The server will not do this, however often it is asked."""


class Incomplete(Exception):
    """What was brought is not all, or was damaged on its way: bring it again."""


class _Problem(Struct, kw_only=True):
    detail: str = ""


class _Connected:
    """A client, and how many requests it is in the middle of. It is closed after the last of them: a socket
    that is closed below another thread may be another file by the time that one writes to it."""

    def __init__(self, client: httpx2.Client) -> None:
        self.client = client
        self.users = 0
        self.left = False


class Talking:
    """``connect`` makes a client whose base is the server."""

    def __init__(self, connect: Callable[[], httpx2.Client]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._now: _Connected | None = None
        self._closed = False

    def close(self) -> None:
        """Nothing more is asked."""
        with self._lock:
            self._closed = True
            connected = self._now
        if connected is not None:
            self._leave(connected)

    # --- what an attempt wrote ----------------------------------------------------------------------
    def kept(self, attempt: str) -> Kept:
        """All methods raise NotNow, Refused, Incomplete."""
        return _decoded(self._ask("GET", f"{attempt}/artifacts"), Kept)

    def put_blob(self, attempt: str, digest: str, data: bytes) -> None:
        self._ask("PUT", f"{attempt}/artifacts/{digest}", data)

    def put_manifest(self, attempt: str, manifest: Manifest) -> None:
        self._ask("PUT", f"{attempt}/artifacts", wire.encode(manifest))

    # --- what it has as input -----------------------------------------------------------------------
    def inputs(self, attempt: str, need: str) -> dict[int, int]:
        """By index, the number of the attempt that wrote it."""
        return dict(_decoded(self._ask("GET", f"{attempt}/inputs/{need}"), InputElements).elements)

    def manifest(self, attempt: str, need: str, index: int) -> Manifest:
        try:
            return wire.decode(self._ask("GET", f"{attempt}/inputs/{need}/{index}"))
        except ValueError as error:
            raise Incomplete(str(error)) from None

    def blob(self, attempt: str, need: str, index: int, digest: bytes) -> bytes:
        data = self._ask("GET", f"{attempt}/inputs/{need}/{index}/{digest.hex()}")
        if wire.digest_of(data) != digest:
            raise Incomplete(f"the blob {digest.hex()} came with another content")
        return data

    # --- asking -------------------------------------------------------------------------------------
    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connected = self._open()
        try:
            answer = connected.client.request(method, f"/v1/agent/attempts/{path}", content=body)
        except (httpx2.TransportError, OSError) as error:
            self._leave(connected)
            raise NotNow(str(error) or type(error).__name__) from None
        finally:
            self._used(connected)
        if answer.status_code < 400:
            return answer.content
        raise _refusal(answer)

    def _open(self) -> _Connected:
        with self._lock:
            if self._closed:
                raise NotNow("the agent ends")
            if self._now is None:
                try:
                    self._now = _Connected(self._connect())
                except OSError as error:
                    raise NotNow(str(error)) from None
            self._now.users += 1
            return self._now

    def _leave(self, connected: _Connected) -> None:
        """The next request takes another one, which shows the certificate of then."""
        with self._lock:
            connected.left = True
            if self._now is connected:
                self._now = None
            if connected.users:
                return
        connected.client.close()

    def _used(self, connected: _Connected) -> None:
        with self._lock:
            connected.users -= 1
            if connected.users or not connected.left:
                return
        connected.client.close()


def _refusal(answer: httpx2.Response) -> Exception:
    try:
        said = msgspec.json.decode(answer.content, type=_Problem).detail
    except msgspec.DecodeError:
        said = ""
    text = said or f"the server answers {answer.status_code}"
    if answer.status_code >= 500 or answer.status_code in _FOR_NOW:
        return NotNow(text)
    return Incomplete(text) if answer.status_code in (_CONFLICT, _BAD_REQUEST) else Refused(text)


def _decoded(data: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise NotNow(f"the server's answer is none: {error}") from None
