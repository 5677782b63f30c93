"""What a task names as input is on this node, whole, before an attempt of it starts."""

from __future__ import annotations

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar
from weakref import WeakValueDictionary

import structlog

from towline.agent.artifacts import Artifacts
from towline.agent.moving.copies import Copies
from towline.agent.moving.laying import lay
from towline.agent.moving.talking import Incomplete, NotNow, Refused, Talking
from towline.agent.moving.uploads import FIRST_PAUSE_S, LONGEST_PAUSE_S, TRIES
from towline.agent.prepare import Template, Unprepared
from towline.core.agent.eviction import Pins
from towline.errors import NO_ROOM
from towline.model.states import Reason
from towline.wire.manifest import Manifest

AT_ONCE = 3
"""Trees that are being fetched."""
FETCHING = 3
"""Blobs of all of them that are on their way or wait to be written, each of which is in memory."""
MOST_WHOLE = 10_000
"""Inputs that are known to be whole without a look at each element."""
T = TypeVar("T")


class Wanted(NamedTuple):
    """An input of an attempt: the elements first to last of a task."""

    attempt: str
    need: str
    job: str
    task: int
    first: int
    last: int

    @property
    def what(self) -> tuple[str, int, int, int]:
        """The same for all attempts that want it."""
        return self[2:]


class Inputs:
    """``pins`` says what attempts of this node need."""

    def __init__(
        self, artifacts: Artifacts, copies: Copies, talking: Talking, pins: Callable[[], Pins]
    ) -> None:
        self._artifacts = artifacts
        self._copies = copies
        self._talking = talking
        self._pins = pins
        self._whole: dict[tuple[str, int, int, int], None] = {}
        self._coming: dict[tuple[str, int, int, int], asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._turns: WeakValueDictionary[tuple[object, ...], asyncio.Lock] = WeakValueDictionary()
        self._fetchers = ThreadPoolExecutor(FETCHING, thread_name_prefix="inputs")
        self._log = structlog.get_logger("agent.artifacts")

    async def ready(self, template: Template, attempt: str, index: int) -> None:
        """Return once all inputs of an attempt are there. While the server is away it is waited for. Raises
        Unprepared."""
        for need in template.spec.inputs:
            task, first, last, _ = template.input_tasks[need]
            if need in template.each:
                first = last = first + index - template.array.first
            await self._have(Wanted(attempt, need, template.job, task, first, last))

    def close(self) -> None:
        for task in self._coming.values():
            task.cancel()
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    async def _have(self, wanted: Wanted) -> None:
        """What several attempts want is fetched once. One that fetches it for others may be no attempt of
        this node any more before it is done: then the next one asks for itself."""
        while wanted.what not in self._whole:
            coming = self._coming.get(wanted.what)
            mine = coming is None
            if coming is None:
                coming = self._coming[wanted.what] = asyncio.create_task(self._fetch_all(wanted))
                coming.add_done_callback(lambda _: self._coming.pop(wanted.what, None))
            try:
                await asyncio.shield(coming)
            except Refused as error:
                if mine:
                    raise _unprepared(wanted, str(error)) from None
            except Incomplete as error:
                raise _unprepared(wanted, f"they come damaged: {error}") from None
            except OSError as error:
                raise _no_room(wanted, error) from None

    async def _fetch_all(self, wanted: Wanted) -> None:
        told = await self._asking(self._talking.inputs, wanted.attempt, wanted.need)
        numbers = {index: told[index] for index in told if wanted.first <= index <= wanted.last}
        await asyncio.to_thread(self._copies.drop_others, *wanted.what, numbers)
        work = [self._fetch(wanted, index, number) for index, number in numbers.items()]
        for result in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        if len(self._whole) >= MOST_WHOLE:
            self._whole.clear()
        self._whole[wanted.what] = None

    async def _fetch(self, wanted: Wanted, index: int, number: int) -> None:
        async with self._turn(wanted.job, wanted.task, index), self._places:
            if await asyncio.to_thread(self._copies.holds, wanted.job, wanted.task, index, number):
                return
            manifest = await self._asking(self._talking.manifest, wanted.attempt, wanted.need, index)
            await self._make_room(manifest.size_bytes)
            try:
                await self._asking(self._place, wanted, index, number, manifest)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                await self._make_room(manifest.size_bytes, 0)
                await self._asking(self._place, wanted, index, number, manifest)

    def _turn(self, *element: object) -> asyncio.Lock:
        """One at a time fetches an element, also where it is wanted as a part of several inputs: all of them
        stage it in the same place."""
        turn = self._turns.get(element)
        if turn is None:
            turn = self._turns[element] = asyncio.Lock()
        return turn

    async def _make_room(self, size_bytes: int, most_bytes: int | None = None) -> None:
        freed = await asyncio.to_thread(self._copies.make_room, size_bytes, self._pins(), most_bytes)
        if freed:
            self._whole.clear()
            self._log.info("copies were removed to make room", freed_bytes=freed)

    async def _asking(self, ask: Callable[..., T], *arguments: object) -> T:
        """Again and again while the server is away."""
        tries, pause_s, told = 0, FIRST_PAUSE_S, ""
        while True:
            try:
                return await asyncio.to_thread(ask, *arguments)
            except NotNow as error:
                if str(error) != told:
                    told = str(error)
                    self._log.warning("inputs wait", reason=told)
            except Incomplete:
                tries += 1
                if tries == TRIES:
                    raise
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    def _place(self, wanted: Wanted, index: int, number: int, manifest: Manifest) -> None:
        """Fetch an element's tree and have it in its place. Blocks."""
        job, task = wanted.job, wanted.task
        folder = self._copies.staging(job, task, index, number)
        blobs = _blobs(self._talking, self._fetchers, wanted, index, manifest)
        try:
            lay(folder, manifest, blobs)
        except ValueError as error:
            raise Incomplete(str(error)) from None
        finally:
            blobs.close()
        self._artifacts.place(folder, job, task, index, number)
        self._copies.note(job, task, index, number, manifest.size_bytes)


def _blobs(
    talking: Talking, fetchers: Executor, wanted: Wanted, index: int, manifest: Manifest
) -> Generator[bytes, None, None]:
    """The content in order, a few blobs ahead of what is written."""
    if manifest.inline:
        yield manifest.inline
        return
    coming: deque[Future[bytes]] = deque()
    try:
        for digest in manifest.blobs:
            coming.append(fetchers.submit(talking.blob, wanted.attempt, wanted.need, index, digest))
            if len(coming) >= FETCHING:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        for future in coming:
            future.cancel()
        wait(coming)


def _unprepared(wanted: Wanted, what: str) -> Unprepared:
    text = f"Its input {wanted.need!r} could not be brought to the node: {what.rstrip('.')}."
    return Unprepared(text, Reason.ARTIFACTS_FAILED.value)


def _no_room(wanted: Wanted, error: OSError) -> Unprepared:
    if error.errno in NO_ROOM:
        return Unprepared(
            f"There is no space left on the node's disk for its input {wanted.need!r}: free some, or run it "
            "on another node.",
            Reason.DISK_FULL.value,
        )
    return _unprepared(wanted, error.strerror or os.strerror(error.errno or 0))
