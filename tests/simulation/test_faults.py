"""Seeded histories of several servers: no promise is broken, each replays, and a failure says what has
happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from towline.core.rows import Changes
from towline.simulation.faults import simulate
from towline.simulation.faults.run import LEAST_DELIVERED, LEAST_FAULTS
from towline.store.memory import MemoryStore

SEEDS = int(os.environ.get("TOWLINE_SIMULATION_SEEDS", "500"))
CHUNK = 25
KINDS = 20
"""Of faults, all of which strike in any so many seeds."""


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_promise_is_broken(first: int) -> None:
    verdicts = [simulate(seed) for seed in range(first, min(SEEDS, first + CHUNK))]
    broken = [str(verdict) for verdict in verdicts if verdict.broken]
    assert not broken, "\n".join(broken)
    assert min(verdict.delivered for verdict in verdicts) >= LEAST_DELIVERED
    assert min(verdict.fault_count for verdict in verdicts) >= LEAST_FAULTS
    struck = Counter[str]()
    for verdict in verdicts:
        struck.update(verdict.faults)
    assert len(struck) >= KINDS, struck
    assert sum(verdict.starts for verdict in verdicts) > 20 * len(verdicts)


def test_a_seed_and_a_mode_are_a_history() -> None:
    assert simulate(7) == simulate(7)
    assert simulate(7).digest not in (simulate(8).digest, simulate(7, "safety").digest)


def test_a_history_is_the_same_under_any_order_of_hashes() -> None:
    def told(hashes: str) -> list[dict[str, Any]]:
        command = "from towline.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", command, "simulate", "--faults", "--seeds", "4-5", "--json"],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    first = told("1")
    assert first == told("2")
    assert [verdict["seed"] for verdict in first] == [4, 5]
    assert all(verdict["starts"] for verdict in first)


def test_a_failure_says_the_seed_what_was_done_last_and_what_it_breaks() -> None:
    class Unfenced(MemoryStore):
        async def commit(self, pool: str, term: int, commit_no: int, changes: Changes) -> None:
            row = self._pools[pool]
            await super().commit(pool, row.term, row.commit_no, changes)

    for seed in range(100):
        found = simulate(seed, store=Unfenced)
        if found.broken:
            break
    assert found.broken == simulate(seed, store=Unfenced).broken
    text = str(found)
    assert text.startswith(f"seed {seed} (")
    assert text.count(" -> ") > 10
    assert text.splitlines()[-1] == f"  BROKEN: {found.broken[-1]}"
    assert "a commit of term" in text
