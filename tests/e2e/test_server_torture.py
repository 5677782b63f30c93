"""Faults at random on three servers, their database and their nodes; after each every promise is checked.

Leases are in the database, which has a synchronous standby and a small disk, or in a ZooKeeper ensemble of
three. ``TOWLINE_FAULTS`` says how many faults, those of test_recovery_torture.py among them, ``TOWLINE_SEED``
which. Without it there are a few that were chosen.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.e2e import faults
from tests.e2e.fleet import Stamps
from tests.e2e.server_torture import OfEnsemble, OfServers
from tests.e2e.several import Several
from tests.e2e.test_recovery_torture import endure

STORE, ZOOKEEPER = faults.asked_for("store"), faults.asked_for("zookeeper")
CHOSEN = not os.environ.get("TOWLINE_FAULTS")
TIMES = {
    "TOWLINE_LEADERSHIP_LEASE": "2s",
    "TOWLINE_HEARTBEAT": "500ms",
    "TOWLINE_NODE_LEASE": "6s",
    "TOWLINE_LEASE_GRACE": "1s",
    "TOWLINE_LOST_AFTER": "9s",
    "TOWLINE_LOST_AFTER_KEEP": "4s",
    "TOWLINE_MAINTENANCE": "12s",
}
pytestmark = [
    pytest.mark.containers,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces are for root"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextmanager
def several(**options: bool) -> Iterator[Several]:
    made = Several(environ=TIMES, **options)
    try:
        yield made
    except BaseException:
        print(made.situation())  # noqa: T201
        raise
    finally:
        made.close()


@pytest.fixture
def stamps(tmp_path_factory: pytest.TempPathFactory) -> Stamps:
    return Stamps(tmp_path_factory.mktemp("shared") / "stamps")


@pytest.mark.skipif(not CHOSEN and STORE == 0, reason="TOWLINE_FAULTS leaves none to this cluster")
@pytest.mark.timeout(600 + 120 * STORE)
def test_random_faults_of_servers_break_no_promise(stamps: Stamps) -> None:
    seed = faults.seed()
    chance = random.Random(seed)
    with several(standby=True) as fleet:
        torture, count = OfServers(fleet, chance), STORE
        if CHOSEN:
            chosen = [torture.fill_store, torture.kill_store, torture.fail_over, torture.crowd_store]
            chosen += [torture.jump_server]
            torture.begin_with(*chosen)
            count = len(chosen)
        endure(torture, stamps, chance, count, seed, "leases in the store")


@pytest.mark.skipif(ZOOKEEPER == 0, reason="TOWLINE_FAULTS leaves none to this cluster")
@pytest.mark.timeout(600 + 120 * ZOOKEEPER)
def test_random_faults_with_leases_in_zookeeper_break_no_promise(stamps: Stamps) -> None:
    seed = faults.seed()
    chance = random.Random(seed)
    with several(leases_in_zookeeper=True) as fleet:
        endure(OfEnsemble(fleet, chance), stamps, chance, ZOOKEEPER, seed, "leases in ZooKeeper")
