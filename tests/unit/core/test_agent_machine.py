"""The agent's machine, step by step; test_agent_faults.py puts it into a world that fails at random."""

from __future__ import annotations

import pytest

from towline.core.agent import effects as out
from towline.core.agent import events as on
from towline.core.agent.machine import AgentMachine
from towline.core.agent.outbox import REPEAT_MS
from towline.core.commands import AttemptUpdate, attempt_id

A, B = attempt_id(("job1", 0, 0, 1)), attempt_id(("job1", 0, 1, 1))
NOW = 1_700_000_000_000


class Driver:
    """A machine that is told several things one after another."""

    def __init__(self) -> None:
        self.machine = AgentMachine()
        self.now = NOW

    def __call__(self, *events: on.Event) -> list[out.Effect]:
        return [effect for event in events for effect in self.machine.handle(event, self.now)]

    def connect(self, known: tuple[AttemptUpdate, ...] = (), term: int = 1) -> list[out.Effect]:
        return self(on.SupervisorUp("journal", known), on.LinkOpened(), on.Welcomed(term))


@pytest.fixture
def tell() -> Driver:
    driver = Driver()
    driver.connect()
    return driver


def start(*elements: tuple[int, int], term: int = 1) -> on.Start:
    return on.Start(term, "job1", 0, elements or ((0, 1),))


def update(attempt: str, state: str, **fields: object) -> AttemptUpdate:
    return AttemptUpdate(attempt=attempt, state=state, **fields)  # type: ignore[arg-type]


def finished(attempt: str) -> AttemptUpdate:
    return update(attempt, "finished", reason="exited", exit_code=0, started_at=NOW, finished_at=NOW)


def test_an_order_goes_from_start_over_the_report_to_forget(tell: Driver) -> None:
    assert tell(start((0, 1), (1, 1))) == [out.Prepare("job1", 0, [(A, 0, 1), (B, 1, 1)])]
    assert tell(on.Prepared([(A, "plan A"), (B, "plan B")])) == [out.RunPlans(["plan A", "plan B"])]
    assert not tell.machine.wants_flush
    assert tell(on.Changed([update(A, "running"), finished(A), update(B, "running")])) == []
    assert tell.machine.wants_flush
    assert tell(on.Flush()) == [out.SendReport(1, (finished(A), update(B, "running")))]
    assert tell(on.Acked(1, 1, (A,))) == [out.Forget((A,))]
    assert tell.machine.known() == (update(B, "running"),)
    assert tell.machine.unacknowledged == set()


def test_what_an_earlier_agent_has_handed_over_is_forgotten_by_the_journal_too(tell: Driver) -> None:
    """A supervisor that stood still starts it while this agent prepares it once more."""
    tell(start(), on.Changed([update(A, "running"), finished(A)]), on.Flush())
    assert tell(on.Acked(1, 1, (A,))) == [out.Forget((A,))]
    assert tell(on.Prepared([(A, "plan")])) == []


def test_an_order_that_comes_twice_starts_once_and_is_answered_again(tell: Driver) -> None:
    tell(start(), on.Prepared([(A, "plan")]), on.Changed([finished(A)]), on.Flush())
    assert tell(start()) == []
    assert tell(on.Flush()) == [out.SendReport(2, (finished(A),))]


def test_hello_names_what_is_still_preparing(tell: Driver) -> None:
    tell(start())
    assert tell(on.LinkClosed(), on.LinkOpened()) == [out.SendHello("journal", (update(A, "preparing"),))]


def test_a_report_is_repeated_on_the_next_link_as_things_stand_then(tell: Driver) -> None:
    tell(start(), on.Prepared([(A, "plan")]), on.Changed([update(A, "running")]), on.Flush())
    tell(on.LinkClosed(), on.Changed([finished(A)]))
    assert tell(on.Flush()) == []
    assert tell(on.LinkOpened()) == [out.SendHello("journal", (finished(A),))]
    assert tell(on.Flush()) == [], "nothing may be said before the server has answered Hello"
    assert tell(on.Welcomed(1), on.Flush()) == [out.SendReport(2, (finished(A),))]


def test_a_report_without_an_acknowledgement_is_repeated_on_the_same_link(tell: Driver) -> None:
    tell(start(), on.Prepared([(A, "plan")]), on.Changed([finished(A)]), on.Flush())
    tell.now += REPEAT_MS - 1
    assert tell(on.Tick()) == []
    tell.now += 1
    assert tell(on.Tick()) == [out.SendReport(2, (finished(A),))]
    assert tell(on.Tick()) == []


def test_stopping_what_is_preparing_cancels_it_and_reports_its_end(tell: Driver) -> None:
    tell(start())
    assert tell(on.Stop(1, A, "cancelled", 10_000)) == [out.CancelPrepare(A)]
    assert tell(on.Prepared([(A, "plan")])) == []
    (report,) = tell(on.Flush())
    assert isinstance(report, out.SendReport)
    (ended,) = report.updates
    assert (ended.state, ended.reason, ended.started_at, ended.finished_at) == (
        "finished",
        "cancelled",
        None,
        NOW,
    )
    assert tell(on.Acked(1, 1, (A,))) == [], "the supervisor never heard of it"
    assert tell.machine.attempt_count == 0


def test_stopping_what_runs_is_passed_on_once_and_again_when_it_shall_be_faster(tell: Driver) -> None:
    tell(start(), on.Prepared([(A, "plan")]), on.Changed([update(A, "running")]))
    assert tell(on.Stop(1, A, "cancelled", 10_000)) == [out.StopAttempt(A, "cancelled", 10_000)]
    assert tell(on.Stop(1, A, "cancelled", 10_000)) == []
    assert tell(on.Stop(1, A, "cancelled", 0)) == [out.StopAttempt(A, "cancelled", 0)]


def test_stopping_what_nobody_knows_is_reported_as_its_end(tell: Driver) -> None:
    assert tell(on.Stop(1, A, "cancelled", 0)) == []
    (report,) = tell(on.Flush())
    assert isinstance(report, out.SendReport)
    assert [(u.attempt, u.state, u.reason) for u in report.updates] == [(A, "finished", "cancelled")]
    assert tell(start()) == [], "and it does not start after that"


def test_what_was_declared_ended_is_stopped_when_it_turns_up(tell: Driver) -> None:
    tell(on.Stop(1, A, "cancelled", 5))
    assert tell(on.Changed([update(A, "running")])) == [out.StopAttempt(A, "cancelled", 0)]
    assert tell(on.Acked(1, 1, (A,))) == [out.Forget((A,))]


def test_a_failed_preparation_ends_the_attempt_with_its_reason(tell: Driver) -> None:
    tell(start(), on.PrepareFailed((A,), "image_not_found", "There is no image x."))
    (report,) = tell(on.Flush())
    assert isinstance(report, out.SendReport)
    assert report.updates[0].reason == "image_not_found"
    assert report.updates[0].message == "There is no image x."


def test_a_slow_preparation_is_told_and_a_declined_one_was_never_there(tell: Driver) -> None:
    tell(start((0, 1), (1, 1)), on.Slow((A,)))
    assert tell(on.Flush()) == [out.SendReport(1, (update(A, "preparing"),))]
    tell(on.Declined((A, B)))
    assert tell.machine.known() == ()
    assert tell(start()) == [out.Prepare("job1", 0, [(A, 0, 1)])]


def test_a_plan_waits_for_the_supervisor_and_goes_again_if_it_may_not_have_arrived(tell: Driver) -> None:
    tell(start((0, 1), (1, 1)), on.Prepared([(B, "plan B")]), on.SupervisorDown())
    assert tell(on.Prepared([(A, "plan A")])) == []
    assert tell(on.SupervisorUp("journal", ())) == [out.RunPlans(["plan A", "plan B"])]
    assert tell(on.SupervisorDown(), on.SupervisorUp("journal", (update(A, "running"),))) == [
        out.RunPlans(["plan B"])
    ]


def test_a_stop_outlives_the_supervisor_that_it_was_sent_to(tell: Driver) -> None:
    tell(start((0, 1), (1, 1)), on.Prepared([(A, "plan A"), (B, "plan B")]), on.SupervisorDown())
    assert tell(on.Stop(1, A, "cancelled", 7), on.Stop(1, B, "cancelled", 7)) == []
    effects = tell(on.SupervisorUp("journal", (update(A, "running"),)))
    assert effects == [out.StopAttempt(A, "cancelled", 7)], "and B, which it does not have, never starts"
    assert {u.attempt: u.state for u in tell.machine.known()} == {A: "running", B: "finished"}


def test_what_vanished_from_the_journal_is_lost(tell: Driver) -> None:
    tell(start(), on.Prepared([(A, "plan")]), on.Changed([update(A, "running", started_at=5)]))
    tell(on.SupervisorDown(), on.SupervisorUp("journal", ()))
    (lost,) = tell.machine.known()
    assert (lost.state, lost.reason, lost.started_at) == ("lost", "supervision_lost", 5)


def test_another_journal_means_another_hello(tell: Driver) -> None:
    tell(start((0, 1), (1, 1)), on.Prepared([(A, "plan")]), on.Changed([update(A, "running")]))
    tell(on.Flush(), on.SupervisorDown())
    effects = tell(on.SupervisorUp("another", ()))
    assert [type(effect) for effect in effects] == [out.DropLink]
    assert tell(on.LinkClosed(), on.LinkOpened()) == [out.SendHello("another", (update(B, "preparing"),))]


def test_a_new_agent_takes_over_what_the_journal_has() -> None:
    tell = Driver()
    assert tell.connect((update(A, "running"), finished(B))) == [
        out.SendHello("journal", (update(A, "running"), finished(B)))
    ]
    assert tell(on.Acked(1, 0, (B,))) == [out.Forget((B,))]
    assert tell(start((0, 1))) == []


def test_a_new_supervisor_with_nothing_new_causes_no_report(tell: Driver) -> None:
    tell(start(), on.Prepared([(A, "plan")]), on.Changed([update(A, "running")]), on.Flush())
    tell(on.Acked(1, 1, ()), on.SupervisorDown(), on.SupervisorUp("journal", (update(A, "running"),)))
    assert not tell.machine.wants_flush


@pytest.mark.parametrize(
    "order",
    [start(term=2), on.Stop(2, A, "cancelled", 0), on.Acked(2, 1, (A,)), on.Welcomed(2)],
    ids=lambda order: type(order).__name__,
)
def test_a_leader_of_a_lower_term_is_not_obeyed(order: on.Event) -> None:
    tell = Driver()
    tell.connect((finished(A),), term=3)
    (effect,) = tell(order)
    assert isinstance(effect, out.DropLink)
    assert "term 2" in effect.why and "term 3" in effect.why
    assert tell.machine.known() == (finished(A),)


def test_what_runs_is_not_forgotten_whoever_says_so(tell: Driver) -> None:
    tell(start(), on.Prepared([(A, "plan")]), on.Changed([update(A, "running")]))
    assert tell(on.Acked(1, 1, (A,))) == []
    assert tell.machine.attempt_count == 1


def test_forgetting_waits_for_a_supervisor_that_is_away(tell: Driver) -> None:
    tell(start(), on.Prepared([(A, "plan")]), on.Changed([finished(A)]), on.Flush(), on.SupervisorDown())
    assert tell(on.Acked(1, 1, (A,))) == []
    assert tell.machine.attempt_count == 0
    tell(on.SupervisorUp("journal", (finished(A),)))
    assert tell(on.Flush()) == [out.SendReport(2, (finished(A),))]
    assert tell(on.Acked(1, 2, (A,))) == [out.Forget((A,))]


def test_a_link_before_the_journal_was_read_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="journal"):
        Driver()(on.LinkOpened())
