"""A leader that is frozen at any moment stands in nobody's way, and is refused when it wakes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.store.postgresql import PostgresStore

ROUNDS = int(os.environ.get("TOWLINE_FREEZES", "6"))
ROOT = Path(__file__).parents[3]
LOCK_WAIT_S = 3.0
"""Less than any timeout of the database's: nothing is waited for."""


async def test_its_successor_leads_at_once(store: PostgresStore) -> None:
    chosen = random.Random(7)
    for _ in range(ROUNDS):
        leader = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.integration.postgresql.frozen_leader", store.address.url,
            cwd=ROOT, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert leader.stdout is not None
        try:
            for _ in range(chosen.randrange(5, 40)):
                last = int(await leader.stdout.readline())
            leader.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(LOCK_WAIT_S):
                successor = await Writing.lead(store, "default")
            _, successor.event_no = await store.counters("default")
            await successor.commit(events=[rows.event(successor.event_no + 1, term=successor.term)])
            leader.send_signal(signal.SIGCONT)
            *told, stale, _ = (await leader.stdout.read()).decode().split("\n")
            assert stale == "stale"
            told_last = int(told[-1]) if told else last
            assert told_last <= successor.event_no
            assert await leader.wait() == 0
        finally:
            if leader.returncode is None:
                leader.kill()
                await leader.wait()
    events = await store.events("default", 0, 100_000)
    assert [row.number for row in events] == list(range(1, len(events) + 1))
    terms = [row.data["term"] for row in events]
    assert terms == sorted(terms) and len(set(terms)) == 2 * ROUNDS
