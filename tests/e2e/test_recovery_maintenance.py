"""A planned stop of the only server: what runs under stop outlives it, and is never there twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from tests.e2e.faults import boottime_s
from tests.e2e.fleet import SHORT, Fleet, Stamps
from tests.e2e.history import judge, settled
from tests.e2e.home import until

LEASE_S = 4
LONGER_S = 20
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    made = Fleet({**SHORT, "TOWLINE_MAINTENANCE": f"{LONGER_S}s"})
    try:
        yield made
    finally:
        made.close()


def test_under_stop_it_outlives_a_planned_stop(
    fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One node is there all the time; one is cut off meanwhile, whose longer lease is waited for."""
    stamps = Stamps(tmp_path_factory.mktemp("shared") / "stamps")
    fleet.serve()
    stays, cut = fleet.join("stays", "cut")
    (warning,) = fleet.get("/v1/server")["problems"]
    assert f"node_lease is {LEASE_S} s" in warning
    tasks = {
        "stays": stamps.task("stays", "spare", every_s=0.01, on_disconnect="stop"),
        "cut": stamps.task("cut", "spare", every_s=0.01, on_disconnect="stop"),
    }
    job = fleet.submit("planned", **tasks)
    until(lambda: all(stamps.of(name, 1) for name in tasks), "all to run")
    fleet.join("spare")

    assert fleet.server is not None
    fleet.server.send_signal(signal.SIGTERM)
    fleet.server.wait()
    stopped_s = boottime_s()
    cut.cut_off("both")
    until(lambda: boottime_s() > stopped_s + LEASE_S + 2, "longer than the usual lease")
    assert stamps.of("stays", 1)[-1] > stopped_s + LEASE_S + 1
    assert stamps.of("cut", 1)[-1] > stopped_s + LEASE_S + 1
    fleet.serve()
    until(lambda: fleet.state("stays") == "ready", "the node to be back")
    until(lambda: stamps.of("cut", 2), "the other one's to run elsewhere")
    assert stamps.attempts("stays") == [1]

    # Its lease is the usual one again: a node that is cut off now ends what it has after that.
    cut_s = boottime_s()
    stays.cut_off("both")
    until(lambda: stamps.of("stays", 2), "that to run elsewhere too")
    assert stamps.of("stays", 1)[-1] < cut_s + LONGER_S
    for machine in (stays, cut):
        machine.heal()
    until(lambda: all(fleet.state(name) == "ready" for name in ("stays", "cut")), "both to be back")
    stamps.end()
    until(lambda: fleet.get(f"/v1/jobs/{job}")["ended_at"], "the job to end")
    assert not judge(settled(fleet, stamps, [job]), lost=["stays", "cut"])
