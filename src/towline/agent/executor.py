"""The agent's hands: gives events to the machine and carries out its effects, in order.

Everything happens on the event loop's thread, and an element costs no task or future of its own: the
image of a task is waited for once, by one task for all of its elements.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import structlog

from towline.agent import control
from towline.agent.artifacts import Artifacts
from towline.agent.prepare import Preparer, Template, Templates, Unprepared
from towline.core.agent import effects as out
from towline.core.agent import events as on
from towline.core.agent.machine import AgentMachine
from towline.core.commands import AttemptUpdate, attempt_key
from towline.model.states import AttemptState, Reason
from towline.runtime.port import Plan
from towline.wire import messages as wire

if TYPE_CHECKING:
    from towline.agent.moving.inputs import Inputs  # loads HTTP, which one machine alone needs not
    from towline.agent.moving.uploads import Uploads

BATCH_ABOVE = 16
"""Reports are held back only while more attempts than these are on the node."""

BATCH_S = 0.003
SLOW_S = 0.25
"""A preparation that takes longer is told of."""

Element = tuple[int, int, str | None, int]
"""(index, attempt number, the GPUs that it was given, the row of node leases that it was ordered in: see
``Plan.lease_ms``)."""

_ENDED = (AttemptState.FINISHED, AttemptState.LOST)


class Server(Protocol):
    """The link, as far as the executor uses it."""

    def hello(self, instance: str, known: tuple[AttemptUpdate, ...]) -> None: ...

    def say(self, message: wire.FromAgent) -> None: ...

    def drop(self, why: str) -> None: ...


class Supervisor(Protocol):
    def say(self, message: control.ToSupervisor) -> None: ...


class _Waiting:
    """Elements of one task whose image or inputs are being fetched."""

    def __init__(self, elements: dict[str, Element]) -> None:
        self.elements = elements
        self.task: asyncio.Task[None] | None = None
        self.more = asyncio.Event()
        """Set when elements are added."""


class Executor:
    """``attach`` closes the circle before the first event. ``clock_ms`` gives unix ms."""

    def __init__(
        self,
        machine: AgentMachine,
        preparer: Preparer,
        artifacts: Artifacts,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.machine = machine
        self.templates = Templates()
        self._preparer = preparer
        self._artifacts = artifacts
        self._clock_ms = clock_ms
        self._events: deque[on.Event] = deque()
        self._handling = False
        self._flush: asyncio.TimerHandle | None = None
        self._waiting: dict[Template, _Waiting] = {}
        self.ended: Callable[[Sequence[str]], None] = lambda _: None
        """Told of attempts that have ended, before the server is."""
        self.lease_ms: Callable[[], int] = lambda: 0
        """Gives the row of node leases of this moment; 0: this node has none."""
        self.news: Callable[[Sequence[AttemptUpdate]], None] = lambda _: None
        """Told of all that the supervisor says of attempts, and of what cannot be prepared."""
        self.uploads: Uploads | None = None
        """Where what has succeeded waits until the server has what it wrote; None: it stays here."""
        self.inputs: Inputs | None = None
        """Where inputs come from that other nodes have written."""
        self.keep_log: Callable[[Sequence[str], Sequence[tuple[int, str]]], None] = lambda *_: None
        """Given what was tried, with unix ms, for attempts that will never start."""
        self._log = structlog.get_logger("agent")

    def attach(self, server: Server, supervisor: Supervisor) -> None:
        self._server = server
        self._supervisor = supervisor

    def close(self) -> None:
        """Stop what is being prepared; nothing that runs is touched."""
        if self._flush is not None:
            self._flush.cancel()
        for waiting in self._waiting.values():
            if waiting.task is not None:
                waiting.task.cancel()

    # --- events -------------------------------------------------------------------------------------
    def tell(self, *events: on.Event) -> None:
        """Hand events to the machine, in order, also those that their own effects cause."""
        self._events.extend(events)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                for effect in self.machine.handle(self._events.popleft(), self._clock_ms()):
                    self._perform(effect)
        finally:
            self._handling = False
        if self.machine.wants_flush and self._flush is None:
            self._plan_flush()

    def changed(self, updates: Sequence[AttemptUpdate]) -> None:
        """News from the supervisor."""
        self.tell(on.Changed(self.settled(updates)))

    def settled(self, updates: Sequence[AttemptUpdate]) -> list[AttemptUpdate]:
        """What those that have ended wrote is in its place before anybody hears of their end."""
        settle, secrets = self._artifacts.settle, self._preparer.secrets
        settled: list[AttemptUpdate] = []
        over: list[str] = []
        for update in updates:
            if update.state in _ENDED:
                over.append(update.attempt)
                secrets.ended(update.attempt)
                ended = settle(update)
                settled.append(ended if self.uploads is None else self.uploads.hold(ended))
            else:
                settled.append(update)
        if over:
            self.ended(over)
        self.news(settled)
        return settled

    def released(self, update: AttemptUpdate) -> None:
        """The end of an attempt that was held back."""
        self.news([update])
        self.tell(on.Changed([update]))

    def _plan_flush(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = BATCH_S if self.machine.attempt_count > BATCH_ABOVE else 0.0
        self._flush = loop.call_later(delay_s, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        self.tell(on.Flush())

    # --- effects ------------------------------------------------------------------------------------
    def _perform(self, effect: out.Effect) -> None:
        match effect:
            case out.SendReport():
                self._server.say(wire.Report(seq=effect.seq, updates=effect.updates))
            case out.Prepare():
                self._prepare(effect)
            case out.RunPlans():
                self._supervisor.say(control.Run(plans=tuple(cast("Sequence[Plan]", effect.plans))))
            case out.Forget():
                self._supervisor.say(control.Forget(attempts=effect.attempts))
            case out.StopAttempt():
                self._stop(effect)
            case out.CancelPrepare():
                self._cancel(effect.attempt)
            case out.SendHello():
                self._server.hello(effect.instance, effect.known)
            case out.DropLink():
                self._server.drop(effect.why)

    def _stop(self, order: out.StopAttempt) -> None:
        if self.uploads is not None and self.uploads.stop(order.attempt, order.reason):
            return
        self._supervisor.say(
            control.StopAttempt(attempt=order.attempt, reason=order.reason, grace_ms=order.grace_ms)
        )

    def _prepare(self, order: out.Prepare) -> None:
        template = self.templates.get(order.job, order.task)
        if template is None:
            self._events.append(on.Declined([name for name, _, _ in order.elements]))
            self._server.drop(
                f"the server ordered task {order.task} of job {order.job} without telling of it"
            )
            return
        devices = order.devices
        lease_ms = self.lease_ms() if template.spec.on_disconnect == "stop" else 0
        elements = {
            name: (index, number, devices.get(name), lease_ms) for name, index, number in order.elements
        }
        if template in self._waiting:
            self._waiting[template].elements.update(elements)
            self._waiting[template].more.set()
            return
        try:
            moving = self.inputs is not None and bool(template.spec.inputs)
            if not moving and (self._preparer.is_ready(template) or self._preparer.make_ready_now(template)):
                self._make_plans(template, elements)
                return
        except Unprepared as error:
            self._fail(tuple(elements), error)
            return
        waiting = self._waiting[template] = _Waiting(elements)
        waiting.task = asyncio.get_running_loop().create_task(self._make_ready(template, waiting))

    async def _make_ready(self, template: Template, waiting: _Waiting) -> None:
        slow = asyncio.get_running_loop().call_later(SLOW_S, self._slow, waiting)
        failure: Unprepared | None = None
        try:
            if not self._preparer.is_ready(template):
                await self._preparer.make_ready(template)
            if self.inputs is not None and template.spec.inputs:
                await self._await_inputs(template, waiting, self.inputs)
        except Unprepared as error:
            failure = error
        except Exception as error:
            self._log.exception("preparing failed", job=template.job, task=template.task)
            failure = Unprepared(f"Towline met an error of its own: {error!r}", Reason.START_FAILED.value)
        finally:
            slow.cancel()
            if self._waiting.get(template) is waiting:
                del self._waiting[template]
        if failure is not None:
            self._fail(tuple(waiting.elements), failure)
            return
        self._make_plans(template, waiting.elements)

    async def _await_inputs(self, template: Template, waiting: _Waiting, inputs: Inputs) -> None:
        """Each element starts when what it needs is there; more of them may come meanwhile."""

        async def one(name: str) -> None:
            try:
                await inputs.ready(template, name, attempt_key(name)[2])
            except Unprepared as error:
                if waiting.elements.pop(name, None) is not None:
                    self._fail((name,), error)
                return
            element = waiting.elements.pop(name, None)  # none: it was cancelled meanwhile
            if element is not None:
                self._make_plans(template, {name: element})

        loop = asyncio.get_running_loop()
        begun: dict[str, asyncio.Task[None]] = {}
        try:
            while waiting.elements:
                for name in waiting.elements.keys() - begun.keys():
                    begun[name] = loop.create_task(one(name))
                waiting.more.clear()
                more = loop.create_task(waiting.more.wait())
                running = [begun[name] for name in waiting.elements]
                await asyncio.wait([more, *running], return_when=asyncio.FIRST_COMPLETED)
                more.cancel()
                for task in running:
                    if task.done():
                        task.result()
        finally:
            for task in begun.values():
                task.cancel()

    def waiting(self) -> list[Template]:
        """The tasks whose image or inputs are being fetched for attempts."""
        return list(self._waiting)

    def images_in_hand(self) -> list[str]:
        """Digests of images whose attempts have no plan yet."""
        return [template.image.digest for template in self._waiting if template.image is not None]

    def _slow(self, waiting: _Waiting) -> None:
        self.tell(on.Slow(tuple(waiting.elements)))

    def _make_plans(self, template: Template, elements: dict[str, Element]) -> None:
        plans: list[tuple[str, object]] = []
        for name, (index, number, devices, lease_ms) in elements.items():
            try:
                plans.append((name, self._preparer.plan(template, name, index, number, devices, lease_ms)))
            except Unprepared as error:
                self._fail((name,), error)
        self.tell(on.Prepared(plans))

    def _fail(self, attempts: tuple[str, ...], error: Unprepared) -> None:
        self._log.info("cannot prepare", first=attempts[:1], count=len(attempts), reason=str(error))
        self.keep_log(attempts, (*error.tried, (self._clock_ms(), f"it never started: {error}")))
        self.tell(on.PrepareFailed(attempts, error.reason, str(error)))
        ended = AttemptState.FINISHED.value
        self.news([AttemptUpdate(attempt=attempt, state=ended) for attempt in attempts])

    def _cancel(self, attempt: str) -> None:
        for template, waiting in self._waiting.items():
            if waiting.elements.pop(attempt, None) is None:
                continue
            if not waiting.elements and waiting.task is not None:
                waiting.task.cancel()
                del self._waiting[template]  # what is ordered from now on begins anew
            return
