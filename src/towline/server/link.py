"""One agent's link: what waits to be sent to it, and what it was told before."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol, cast

from msgspec import Struct, structs

from towline.core.commands import Order, StartOrder, StopOrder
from towline.core.rows import SpecRow
from towline.errors import NodeError, Unavailable
from towline.model.job import Array, TaskSpec
from towline.server.logs.receiving import ShippingLink
from towline.wire.artifacts import ArtifactsAnswer, ArtifactsCall
from towline.wire.exec import (
    Credit,
    Data,
    Eof,
    ExecClose,
    ExecOpen,
    ExecSaid,
    ExecSay,
    FromCommand,
    Open,
    Resize,
)
from towline.wire.exec import Signal as ExecSignal
from towline.wire.messages import (
    FromServer,
    Goodbye,
    ImageAnswer,
    ImageCall,
    LogChunk,
    Pin,
    ReadLog,
    Start,
    Stop,
    TaskInfo,
    encode,
)
from towline.wire.pulls import Pull
from towline.wire.usage import ReadUsage, UsageAnswer
from towline.wire.versions import VERSION, has

START_ELEMENTS = 1_000
"""Elements of one Start message at most."""


class Socket(Protocol):
    """The WebSocket below: whole binary frames."""

    async def send(self, frame: bytes) -> None: ...

    async def close(self) -> None: ...


Answer = LogChunk | UsageAnswer | ArtifactsAnswer
"""What answers a single request of the server."""

Further = asyncio.Queue[FromCommand | None]
"""What a further command says; None when the link has closed."""


class Link:
    """The open link of one node. Messages are queued by ``say`` and sent together by ``write``; what further
    commands are told goes in small frames whenever nothing else waits."""

    def __init__(self, node: str, name: str, instance: str, socket: Socket, version: int = VERSION) -> None:
        self.node = node
        self.name = name
        self.instance = instance
        self.version = version
        """Of the messages that the agent and we speak."""
        self._socket = socket
        self._waiting: list[FromServer] = []
        self._patient: deque[ExecOpen | ExecSay | ExecClose] = deque()
        self._further: dict[int, Further] = {}
        self._woken = asyncio.Event()
        self._closing = False
        self._known_tasks: dict[str, set[int]] = {}
        self._requests: dict[int, asyncio.Future[Answer]] = {}
        self._calls: dict[int, asyncio.Queue[ImageAnswer | None]] = {}
        self._request_no = 0
        self.pulls: tuple[Pull, ...] = ()
        """What the node has told last of the images that it is getting."""
        self.shipping: ShippingLink | None = None
        """Where the node ships the output of its attempts."""
        self.lease_is_short = False
        """Whether the node has said that it holds a lease of the usual length."""
        self.is_gone = False

    def say(self, *messages: FromServer) -> None:
        self._waiting += messages
        self._woken.set()

    def close(self) -> None:
        """Send what waits, then close."""
        self._closing = True
        self._woken.set()

    async def write(self) -> None:
        """Send until ``close``; everything that has gathered meanwhile goes into one frame."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting or (self._patient and not self._closing):
                waiting, self._waiting = self._waiting, []
                await self._socket.send(encode(waiting or [self._patient.popleft()]))
            if self._closing:
                await self._socket.close()
                return

    # --- orders -------------------------------------------------------------------------------------
    def order(
        self, term: int, orders: Iterable[Order], describe: Callable[[str, int], TaskInfo | None]
    ) -> None:
        """Queue orders: elements of one task together, and what a task is before its first one.
        ``describe`` tells what the task of a job at a position is, None where the job has ended."""
        elements: list[StartOrder] = []
        of: tuple[str, int] | None = None
        for order in orders:
            if isinstance(order, StartOrder) and (order.job, order.task) == of:
                elements.append(order)
                continue
            self._start(term, of, elements)
            of, elements = None, []
            if isinstance(order, StopOrder):
                self.say(Stop(term=term, attempt=order.attempt, reason=order.reason, grace_ms=order.grace_ms))
            elif self._introduce(order, describe):
                of, elements = (order.job, order.task), [order]
        self._start(term, of, elements)

    def _start(self, term: int, of: tuple[str, int] | None, elements: list[StartOrder]) -> None:
        if of is None:
            return
        for begin in range(0, len(elements), START_ELEMENTS):
            orders = elements[begin : begin + START_ELEMENTS]
            some = tuple([(order.index, order.number) for order in orders])
            devices: tuple[str | None, ...] = ()
            if orders[0].devices is not None:  # all elements of a task ask for the same
                devices = tuple([order.devices for order in orders])
            self.say(Start(term=term, job=of[0], task=of[1], elements=some, devices=devices))

    def _introduce(self, order: StartOrder, describe: Callable[[str, int], TaskInfo | None]) -> bool:
        """Tell the agent of the task, once. False for a job that has ended meanwhile."""
        known = self._known_tasks.get(order.job)
        if known is not None and order.task in known:
            return True
        info = describe(order.job, order.task)
        if info is None:
            return False
        self._known_tasks.setdefault(order.job, set()).add(order.task)
        self.say(info)
        return True

    def pin(self, job: str, task: int, image_digest: str) -> None:
        """Tell an agent that knows the task which image its elements run."""
        if task in self._known_tasks.get(job, ()):
            self.say(Pin(job=job, task=task, image_digest=image_digest))

    def tell_again(self) -> None:
        """Describe every task anew with its next order: something of the descriptions has changed."""
        self._known_tasks.clear()

    def forget_job(self, job: str) -> None:
        self._known_tasks.pop(job, None)

    def goodbye(self, term: int) -> None:
        self.say(Goodbye(term=term))

    # --- images -----------------------------------------------------------------------------------
    async def image_call(self, call: ImageCall, timeout_s: float) -> AsyncIterator[ImageAnswer]:
        """The node's answers, the last of which is ``done``; ``timeout_s`` from one to the next.
        Raises Unavailable."""
        self._request_no += 1
        request = self._request_no
        answers: asyncio.Queue[ImageAnswer | None] = asyncio.Queue()
        self._calls[request] = answers
        if self.is_gone:
            answers.put_nowait(None)
        self.say(structs.replace(call, request=request))
        try:
            while True:
                async with asyncio.timeout(timeout_s):
                    answer = await answers.get()
                if answer is None:
                    raise not_connected(self.name)
                yield answer
                if answer.done:
                    return
        except TimeoutError:
            raise Unavailable(
                f"Node {self.name} has not answered for {timeout_s:.0f} s: repeat the request."
            ) from None
        finally:
            del self._calls[request]

    def image_answer(self, answer: ImageAnswer) -> None:
        if answer.request in self._calls:
            self._calls[answer.request].put_nowait(answer)

    # --- further commands ---------------------------------------------------------------------------
    def exec_open(self, attempt: str, wanted: Open) -> tuple[int, Further]:
        """Have the node run a command in an attempt: its name from now on, and what it says. ``exec_close``
        is to be called in any case. Raises Unavailable."""
        if self.is_gone:
            raise not_connected(self.name)
        self._must_have(ExecOpen)
        self._request_no += 1
        said = self._further[self._request_no] = asyncio.Queue()
        self._say_in_time(ExecOpen(exec=self._request_no, attempt=attempt, open=wanted))
        return self._request_no, said

    def exec_say(self, name: int, said: Data | Eof | Credit | Resize | ExecSignal) -> None:
        self._say_in_time(ExecSay(exec=name, said=said))

    def exec_said(self, message: ExecSaid) -> None:
        if message.exec in self._further:
            self._further[message.exec].put_nowait(message.said)

    def exec_close(self, name: int) -> None:
        """Nobody listens any more: the node ends it, if it has not ended."""
        del self._further[name]
        self._say_in_time(ExecClose(exec=name))

    def _say_in_time(self, message: ExecOpen | ExecSay | ExecClose) -> None:
        self._patient.append(message)
        self._woken.set()

    # --- output and usage ---------------------------------------------------------------------------
    async def read_log(
        self, attempt: str, stream: str, offset: int, limit: int, timeout_s: float
    ) -> LogChunk:
        """A piece of an attempt's output. Raises Unavailable where the node does not answer."""
        order = ReadLog(request=0, attempt=attempt, stream=stream, offset=offset, limit=limit)
        return cast("LogChunk", await self._asked(order, timeout_s))

    async def read_usage(self, order: ReadUsage, timeout_s: float) -> UsageAnswer:
        """What its attempts use now. Raises Unavailable where the node does not answer."""
        return cast("UsageAnswer", await self._asked(order, timeout_s))

    async def artifacts(self, call: ArtifactsCall, timeout_s: float) -> ArtifactsAnswer:
        """What it says of artifacts that it keeps. Raises Unavailable where the node does not answer."""
        return cast("ArtifactsAnswer", await self._asked(call, timeout_s))

    def _must_have(self, message: type[Struct]) -> None:
        """Raises NodeError where the agent does not know it."""
        if not has(self.version, message):
            raise NodeError(
                f"The agent of node {self.name} speaks version {self.version} of the agents' messages, which "
                "cannot do this yet: update Towline on that node."
            )

    async def _asked(self, order: ReadLog | ReadUsage | ArtifactsCall, timeout_s: float) -> Answer:
        self._must_have(type(order))
        self._request_no += 1
        request = self._request_no
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._requests[request] = future
        self.say(structs.replace(order, request=request))
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise Unavailable(
                f"Node {self.name} has not answered for {timeout_s:.0f} s: repeat the request."
            ) from None
        finally:
            self._requests.pop(request, None)

    def answered(self, answer: Answer) -> None:
        future = self._requests.get(answer.request)
        if future is not None and not future.done():
            future.set_result(answer)

    def gone(self) -> None:
        """The link is closed: nobody answers any more."""
        self.is_gone = True
        if self.shipping is not None:
            self.shipping.close()
        for queue in (*self._calls.values(), *self._further.values()):
            queue.put_nowait(None)
        for future in self._requests.values():
            if not future.done():
                future.set_exception(not_connected(self.name))


def not_connected(node: str) -> Unavailable:
    return Unavailable(
        f"Node {node} is not connected, and what was asked for is kept there: "
        "repeat the request when it is back."
    )


def task_info(
    row: SpecRow,
    position: int,
    image_digest: str | None = None,
    registry_auth: tuple[str, str, str] | None = None,
    secrets: dict[str, bytes] | None = None,
) -> TaskInfo:
    """What all elements of a task share; ``row.spec`` keeps tasks in the order of their positions."""
    tasks = list(row.spec.tasks.items())
    name, spec = tasks[position]
    positions = {other: at for at, (other, _) in enumerate(tasks)}
    inputs = {need: (positions[need], *_extent(row.spec.tasks[need])) for need in spec.inputs}
    return TaskInfo(
        job=row.job,
        task=position,
        job_name=row.spec.name,
        task_name=name,
        spec=spec,
        base_dir=row.base_dir,
        input_tasks=inputs,
        image_digest=image_digest,
        registry_auth=registry_auth,
        secrets=secrets or {},
    )


def _extent(spec: TaskSpec) -> tuple[int, int, bool]:
    """(first index, last index, is an array)."""
    array = spec.array or Array()
    return array.first, array.last, spec.array is not None
