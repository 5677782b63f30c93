"""Rates, passes and placements at scale (the figures of ``benchmarks/scheduler_core.py``), as rows."""

from __future__ import annotations

import statistics

from benchmarks import scheduler_core
from benchmarks.figures import Options
from benchmarks.scheduler.rows import Row


def rows(options: Options) -> list[Row]:
    found = scheduler_core.measured(options)
    many, one = statistics.median(found.many), statistics.median(found.one)
    p99 = found.placements[len(found.placements) * 99 // 100]
    return [
        Row(
            measure="50 shapes in jobs of 10: assigned and committed",
            unit="elements/s",
            ours=many,
            must=4000,
            aim=10_000,
            peers="kube-scheduler's CI minimum 810",
            other=True,
            note="5,000 simulated nodes, SQLite with full sync, one process",
        ),
        Row(
            measure="one array of 50,000: assigned and committed",
            unit="elements/s",
            ours=one,
            must=15_000,
            aim=30_000,
            peers="Nomad's C1M 3,750 on a cluster",
            other=True,
            note="the same",
        ),
        Row(
            measure="one placement, p99",
            unit="ms",
            ours=p99,
            must=3,
            aim=1,
            lower=True,
            note="CPU time; 10,000 nodes 95 % full",
        ),
        Row(
            measure="one pass after one exit, the slowest",
            unit="ms",
            ours=found.passes[-1],
            must=20,
            aim=5,
            lower=True,
            note="CPU time; 1,000,000 queued in 1,000 arrays of 100 queues, 10,000 full nodes",
        ),
    ]
