"""A simulated machine below its agent: containers, and the supervisor and keeper that watch over them.

Containers are the truth of a history: what runs when and where is told to ``Truth``, and to nobody else at
once. The journal outlives agent and supervisor; the machine's power takes everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from towline.core import lease as rules
from towline.core.commands import AttemptUpdate
from towline.model.states import AttemptState, Reason
from towline.simulation.faults.process import Clocks
from towline.simulation.faults.truth import Truth
from towline.simulation.faults.world import MS, SECOND, World

ENDED = (AttemptState.FINISHED.value, AttemptState.LOST.value)
RUNNING = AttemptState.RUNNING.value
LOOK_US = 200 * MS
"""How often supervisor and keeper look at the lease."""
OWN_GRACE_MS = 10_000
NEWS_US = 2 * MS


class Plan(NamedTuple):
    """``lease_ms``: the row of leases that it was ordered in; 0: it does not live by the lease."""

    attempt: str
    lease_ms: int
    length_us: int
    code: int


class Host:
    """``told`` hears what the supervisor says of attempts; ``supervised`` whether it is there."""

    def __init__(self, world: World, name: str, truth: Truth) -> None:
        self.world = world
        self.name = name
        self.clocks = Clocks(world)
        self.lease = rules.NONE
        self.journal: dict[str, AttemptUpdate] = {}
        self.told: Callable[[list[AttemptUpdate]], None] = lambda _: None
        self.supervisor: Callable[[bool], None] = lambda _: None
        """Told that the supervisor is there, or not."""
        self._truth = truth
        self._boots = 0
        self._lives = 0
        self._frozen = self._down = False
        self._held: list[Callable[[], None]] = []
        """What a frozen supervisor was told, and ends that it has not seen."""
        self._leased: dict[str, int] = {}
        """What lives by the lease, and until when at most."""
        self._running: dict[str, str | None] = {}
        """Live containers, with the reason for which each is being ended."""

    @property
    def instance(self) -> str:
        return f"{self.name}-{self._boots}"

    @property
    def supervised(self) -> bool:
        return not self._down

    def lives_by_lease(self, for_us: int = 0) -> bool:
        """Whether anything does, and will for so long if nothing ends it."""
        return any(until_us >= self.world.now_us + for_us for until_us in self._leased.values())

    @property
    def idle(self) -> bool:
        return not self.journal and not self._running

    # --- what the agent asks for ----------------------------------------------------------------------
    def run(self, plans: list[Plan]) -> None:
        for plan in plans:
            self._ask(lambda plan=plan: self._run(plan))

    def stop(self, attempt: str, reason: str, grace_ms: int) -> None:
        self._ask(lambda: self._stop(attempt, reason, grace_ms))

    def forget(self, attempts: tuple[str, ...]) -> None:
        self._ask(lambda: self._forget(attempts))

    def _ask(self, what: Callable[[], None]) -> None:
        """Over the supervisor's socket: lost where it dies first."""
        life = self._lives
        self.world.after(self.world.random.randrange(NEWS_US), self._asked, life, what)

    def _asked(self, life: int, what: Callable[[], None]) -> None:
        if life != self._lives or self._down:
            return
        if self._frozen:
            self._held.append(lambda: self._asked(life, what))
        else:
            what()

    def _run(self, plan: Plan) -> None:
        attempt = plan.attempt
        if attempt in self.journal:
            return
        if plan.lease_ms and not rules.may_start(self.lease, plan.lease_ms, self.clocks.boot_ms()):
            self._note(attempt, AttemptState.LOST.value, Reason.LEASE_EXPIRED.value, None)
            return
        if plan.lease_ms:
            self._leased[attempt] = self.world.now_us + plan.length_us
        self._running[attempt] = None
        now_ms = self.clocks.now_ms()
        self.journal[attempt] = AttemptUpdate(attempt=attempt, state=RUNNING, started_at=now_ms)
        self._truth.started(self.name, attempt)
        self._news(attempt)
        self.world.after(plan.length_us, self._exit, self._boots, attempt, plan.code)

    def _stop(self, attempt: str, reason: str, grace_ms: int) -> None:
        if attempt in self._running:
            grace_us = min(grace_ms * MS, self.world.random.randrange(3 * SECOND))
            self._signal(attempt, reason, grace_us)

    def _signal(self, attempt: str, reason: str, grace_us: int) -> None:
        self._running[attempt] = self._running[attempt] or reason
        self.world.after(grace_us, self._exit, self._boots, attempt, None)

    def _forget(self, attempts: tuple[str, ...]) -> None:
        for attempt in attempts:
            update = self.journal.get(attempt)
            if update is not None and update.state in ENDED:
                del self.journal[attempt]

    # --- containers -----------------------------------------------------------------------------------
    def _exit(self, boots: int, attempt: str, code: int | None) -> None:
        """A container ends; ``code`` is None where a signal has ended it. The supervisor sees it if it
        can."""
        if boots != self._boots or attempt not in self._running:
            return
        reason = self._running.pop(attempt)
        expired = reason == Reason.LEASE_EXPIRED.value
        state = AttemptState.LOST.value if expired and code is None else AttemptState.FINISHED.value
        self._truth.ended(attempt, code)
        self._leased.pop(attempt, None)
        why = Reason.EXITED.value if code is not None else reason

        def seen() -> None:
            self._note(attempt, state, why, code)

        if self._frozen or self._down:
            self._held.append(seen)  # the keeper keeps it
        else:
            seen()

    def _note(self, attempt: str, state: str, reason: str | None, code: int | None) -> None:
        running = self.journal.get(attempt)
        self.journal[attempt] = AttemptUpdate(
            attempt=attempt,
            state=state,
            reason=reason,
            exit_code=code,
            signal=15 if code is None and running is not None else None,
            started_at=None if running is None else running.started_at,
            finished_at=self.clocks.now_ms(),
        )
        self._news(attempt)

    def _news(self, attempt: str) -> None:
        life = self._lives
        update = self.journal[attempt]
        self.world.after(self.world.random.randrange(NEWS_US), self._tell, life, update)

    def _tell(self, life: int, update: AttemptUpdate) -> None:
        if life == self._lives and not self._down:
            self.told([update])

    # --- the node lease -------------------------------------------------------------------------------
    def grant(self, lease: rules.Lease) -> None:
        """The agent writes down what it was granted."""
        if lease == self.lease:
            return
        self.lease = lease
        look_us = self.world.random.randrange(LOOK_US)
        until_us = self.clocks.until_us(lease.until_ms * MS)
        overdue_ms = lease.until_ms + lease.grace_ms + rules.OTHER_ENFORCER_MS
        self.world.after(until_us + look_us, self.expire)
        self.world.after(self.clocks.until_us(overdue_ms * MS) + look_us, self.cut)

    def expire(self) -> None:
        """The supervisor's half: what lives by the lease is ended with it."""
        if self._frozen or self._down or self.clocks.boot_ms() < self.lease.until_ms:
            return
        for attempt in [name for name in self._leased if self._running.get(name) is None]:
            left_ms = rules.grace_left_ms(self.lease, OWN_GRACE_MS, self.clocks.boot_ms())
            takes_us = self.world.random.choice((0, left_ms * MS, left_ms * MS))
            self._signal(attempt, Reason.LEASE_EXPIRED.value, takes_us)

    def cut(self) -> None:
        """The keeper's half: what is left is killed, and the supervisor that should have."""
        if not self._leased or not rules.is_overdue(self.lease, self.clocks.boot_ms()):
            return
        if self._frozen:
            self.supervisor_dies()
        for attempt in list(self._leased):
            self._running[attempt] = Reason.LEASE_EXPIRED.value
            self._exit(self._boots, attempt, None)

    # --- faults ---------------------------------------------------------------------------------------
    def supervisor_dies(self) -> None:
        """The keeper starts another one, which reads the journal."""
        if self._down:
            return
        self._lives += 1
        self._frozen, self._down = False, True
        self.supervisor(False)
        self.world.after(self.world.random.randrange(50 * MS, SECOND), self._supervisor_up, self._boots)

    def supervisor_freezes(self, for_us: int) -> None:
        if not self._down:
            self._frozen = True
            self.world.after(for_us, self._supervisor_thaws, self._lives)

    def _supervisor_thaws(self, life: int) -> None:
        if life == self._lives and self._frozen:
            self._frozen = False
            self._catch_up()

    def _supervisor_up(self, boots: int) -> None:
        if boots == self._boots:
            self._down = False
            self._catch_up()
            self.supervisor(True)

    def _catch_up(self) -> None:
        held, self._held = self._held, []
        for what in held:
            what()
        self.expire()

    def power_fails(self) -> None:
        """All containers are gone, and everything that anybody knew of them."""
        self._boots += 1
        self._lives += 1
        for attempt in self._running:
            self._truth.killed(attempt)
        self._running.clear()
        self._leased.clear()
        self.journal.clear()
        self._held.clear()
        self.lease = rules.NONE
        self._frozen = self._down = False
