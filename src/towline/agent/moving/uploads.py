"""Attempts that have succeeded, and whose success is told once the server has what they wrote.

Until then the server hears that they run: should the node die, they are lost and run again, and nobody finds
an input that is not there. The supervisor's journal has their end: another agent begins here again, with what
the server has by then.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait

import structlog
from msgspec import structs

from towline.agent.artifacts import Artifacts
from towline.agent.moving.copies import Copies
from towline.agent.moving.reading import Changed, TooMany, content, entries_of
from towline.agent.moving.talking import Incomplete, NotNow, Refused, Talking
from towline.core.commands import AttemptKey, AttemptUpdate, attempt_key
from towline.model.states import AttemptState, Reason
from towline.wire.artifacts import FILE
from towline.wire.manifest import INLINE_BYTES, Manifest, digest_of

AT_ONCE = 3
"""Attempts whose files are read at a time."""
SENDING = 3
"""Blobs of all of them that are being sent, each of which is in memory."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
TRIES = 5
"""Of one whose files change while they are read, or that comes damaged to the server."""
MOST_TOLD = 500
"""Characters of a reason to wait."""
_STOPPED = "It was stopped while what it wrote to TOW_OUT was on its way to the server."
_WAITS = "it has succeeded, and what it wrote to TOW_OUT waits to be taken by the server"


class Stopped(Exception):
    """Nobody waits for it any more."""


class _Held:
    """One attempt, with its end, which is not told yet."""

    def __init__(self, update: AttemptUpdate, key: AttemptKey) -> None:
        self.update = update
        self.key = key
        self.stopped = threading.Event()
        self.task: asyncio.Task[None] | None = None
        self.waits: str | None = None
        """Why it does not come to the server."""

    def now(self) -> AttemptUpdate:
        """How it is told of until its end is."""
        return AttemptUpdate(
            attempt=self.update.attempt,
            state=AttemptState.RUNNING.value,
            started_at=self.update.started_at,
            image_digest=self.update.image_digest,
            message=self.waits,
        )


class Uploads:
    """``told`` is given the end of each, when it is to be told, and before that why it waits. Until
    ``welcomed`` nothing is sent; ``holding``: whether what ends before that is held."""

    def __init__(
        self,
        artifacts: Artifacts,
        copies: Copies,
        talking: Talking,
        told: Callable[[AttemptUpdate], None],
        holding: bool = True,
    ) -> None:
        self._artifacts = artifacts
        self._copies = copies
        self._talking = talking
        self._told = told
        self._holding = holding
        self._open = False
        self._held: dict[str, _Held] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._senders = ThreadPoolExecutor(SENDING, thread_name_prefix="artifacts")
        self._log = structlog.get_logger("agent.artifacts")

    def welcomed(self, takes: bool) -> None:
        """A server has welcomed the node, and takes artifacts or leaves them where they are."""
        self._holding = self._open = takes
        for attempt, held in list(self._held.items()):
            if not takes:
                self._release(attempt, held.update)
            elif held.task is None:
                self._start(attempt, held)

    def hold(self, update: AttemptUpdate) -> AttemptUpdate:
        """How an attempt that has ended is told of now: as running where it has to wait."""
        if not self._holding or update.exit_code != 0 or update.reason != Reason.EXITED:
            return update
        held = self._held.get(update.attempt)
        if held is None:
            try:
                key = attempt_key(update.attempt)
            except ValueError:
                return update
            job, task, index, number = key
            if self._artifacts.standing(job, task, index) != number:
                return update  # it wrote nothing, or a newer one stands
            if self._copies.holds(*key):
                return update
            held = self._held[update.attempt] = _Held(update, key)
            if self._open:
                self._start(update.attempt, held)
        return held.now()

    def stop(self, attempt: str, reason: str) -> bool:
        """Give it up, if it is held: its end is told at once, and is no success."""
        held = self._held.get(attempt)
        if held is None:
            return False
        self._release(attempt, structs.replace(held.update, reason=reason, message=_STOPPED))
        return True

    def close(self) -> None:
        """Nothing is told any more."""
        for held in self._held.values():
            held.stopped.set()
            if held.task is not None:
                held.task.cancel()
        self._held.clear()
        self._senders.shutdown(wait=False, cancel_futures=True)

    def _start(self, attempt: str, held: _Held) -> None:
        held.task = asyncio.get_running_loop().create_task(self._run(attempt, held))

    def _release(self, attempt: str, update: AttemptUpdate) -> None:
        held = self._held.pop(attempt)
        held.stopped.set()
        if held.task is not None:
            held.task.cancel()
        self._told(update)

    async def _run(self, attempt: str, held: _Held) -> None:
        async with self._places:
            try:
                size_bytes = await self._bring(attempt, held)
                await asyncio.to_thread(self._copies.note, *held.key, size_bytes)
                update = held.update
            except Stopped:
                return
            except (Refused, Changed, Incomplete, TooMany, OSError) as error:
                self._log.warning("artifacts cannot be kept", attempt=attempt, reason=str(error))
                update = _failed(held.update, error)
        held.task = None
        if self._held.get(attempt) is held:
            self._release(attempt, update)

    async def _bring(self, attempt: str, held: _Held) -> int:
        """Again and again while the server is away; returns the bytes. Raises what nothing helps against."""
        root = self._artifacts.path(*held.key[:3])
        tries, pause_s, told = 0, FIRST_PAUSE_S, ""
        while True:
            try:
                return await asyncio.to_thread(
                    bring, self._talking, self._senders, attempt, root, held.stopped
                )
            except NotNow as error:
                if str(error) != told:
                    told = str(error)
                    self._log.warning("artifacts wait", attempt=attempt, reason=told)
                    held.waits = f"{_WAITS}: {told[:MOST_TOLD]}"
                    self._told(held.now())
            except (Changed, Incomplete):
                tries += 1
                if tries == TRIES:
                    raise
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


def bring(talking: Talking, senders: Executor, attempt: str, root: str, stopped: threading.Event) -> int:
    """Have the server keep a tree, as what an attempt wrote; returns its bytes. Blocks.

    Raises NotNow, Refused, Incomplete, Changed, TooMany, Stopped, OSError.
    """
    entries = entries_of(root)
    size_bytes = sum(entry.size_bytes for entry in entries if entry.kind == FILE)
    if size_bytes <= INLINE_BYTES:
        inline = b"".join(content(root, entries))
        talking.put_manifest(attempt, Manifest(entries=entries, size_bytes=size_bytes, inline=inline))
        return size_bytes
    kept = talking.kept(attempt)
    if kept.whole:
        return size_bytes
    there, blobs = set(kept.blobs), list[bytes]()
    sent: deque[Future[None]] = deque()
    try:
        for blob in content(root, entries):
            if stopped.is_set():
                raise Stopped
            blobs.append(digest_of(blob))
            name = blobs[-1].hex()
            if name in there:
                continue
            there.add(name)
            while len(sent) >= SENDING:
                sent.popleft().result()
            sent.append(senders.submit(talking.put_blob, attempt, name, blob))
        while sent:
            sent.popleft().result()
    finally:
        wait(sent)
    talking.put_manifest(attempt, Manifest(entries=entries, size_bytes=size_bytes, blobs=tuple(blobs)))
    return size_bytes


def _failed(update: AttemptUpdate, error: Exception) -> AttemptUpdate:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return structs.replace(
        update,
        reason=Reason.ARTIFACTS_FAILED.value,
        message=f"What it wrote to TOW_OUT could not be brought to the server: {text.rstrip('.')}.",
    )
