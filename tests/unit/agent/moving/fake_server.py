"""A server that artifacts are brought to, in memory: the real bookkeeping behind the agent's port for it."""

from __future__ import annotations

import threading

from obstore.store import MemoryStore

from towline.agent.moving.talking import Incomplete, NotNow, Refused, Talking
from towline.core.commands import attempt_key
from towline.errors import Conflict, NotFound, RequestError
from towline.logs.objects import Objects
from towline.server.artifacts.keeping import Keeping
from towline.wire import manifest as wire
from towline.wire.manifest import Kept, Manifest

JOB = "j1"


class FakeServer(Talking):
    """``away``: why it does not answer. ``refuses``: why it never will. ``damages``: so many blobs arrive
    with another content. ``numbers``: the attempts that stand, of task 0 of one job."""

    def __init__(self) -> None:
        self.keeping = Keeping(Objects(MemoryStore()))
        self.away = ""
        self.refuses = ""
        self.damages = 0
        self.numbers: dict[int, int] = {}
        self.unknown: set[str] = set()
        """Attempts that are not under way any more."""
        self.asked: list[str] = []
        self.brought = threading.Event()
        """Set by each blob that arrives."""

    def _ask_first(self, what: str) -> None:
        self.asked.append(what)
        if self.refuses:
            raise Refused(self.refuses)
        if self.away:
            raise NotNow(self.away)

    def kept(self, attempt: str) -> Kept:
        self._ask_first("kept")
        return self.keeping.kept(attempt_key(attempt))

    def put_blob(self, attempt: str, digest: str, data: bytes) -> None:
        self.brought.set()
        self._ask_first(f"put {digest}")
        if self.damages:
            self.damages -= 1
            data = b"damaged" + data[7:]
        try:
            self.keeping.put_blob(attempt_key(attempt), digest, data)
        except RequestError as error:
            raise Incomplete(str(error)) from None

    def put_manifest(self, attempt: str, manifest: Manifest) -> None:
        self._ask_first("finish")
        try:
            self.keeping.finish(attempt_key(attempt), wire.encode(manifest))
        except Conflict as error:
            raise Incomplete(str(error)) from None

    def inputs(self, attempt: str, need: str) -> dict[int, int]:
        self._ask_first(f"inputs {attempt}")
        if attempt in self.unknown:
            raise Refused("There is no such attempt.")
        written = self.keeping.written(JOB, 0)
        return {index: number for index, number in self.numbers.items() if (index, number) in written}

    def manifest(self, attempt: str, need: str, index: int) -> Manifest:
        self._ask_first(f"manifest {index}")
        found = self.keeping.manifest((JOB, 0, index, self.numbers[index]))
        if found is None:
            raise Refused("it has written nothing")
        return found

    def blob(self, attempt: str, need: str, index: int, digest: bytes) -> bytes:
        self._ask_first(f"blob {index}")
        try:
            data = self.keeping.blob((JOB, 0, index, self.numbers[index]), digest.hex())
        except NotFound as error:
            raise Refused(str(error)) from None
        if self.damages:
            self.damages -= 1
            raise Incomplete("the blob came with another content")
        return data
