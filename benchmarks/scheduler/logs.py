"""Batch logs: our order's mean bounded slowdown and longest wait by those of EASY in the same run."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.scheduler.rows import Row
from towline.simulation.described.policies import named
from towline.simulation.replay.comparing import compare
from towline.simulation.replay.report import report
from towline.simulation.traces.batch import one_machine, workload_of
from towline.simulation.traces.swf import read_swf, workload

OWN, PEER = "slowdown", "easy"
LOGS = {"KTH-SP2-1996-2.1-cln.swf.gz": 100, "SDSC-SP2-1998-4.2-cln.swf.gz": 128}
"""Processors by file."""


def rows(folder: Path) -> list[Row]:
    slowdowns: list[float] = []
    waits: list[float] = []
    for name, processors in LOGS.items():
        log = workload(read_swf(folder / name).records, processors)
        coming = workload_of(log.jobs, "default", log.skipped)
        found = compare(coming, one_machine(processors), named([OWN, PEER]), {}, _told)
        ours, easy = report(found[OWN]), report(found[PEER])
        slowdowns.append(ours.mean_bounded_slowdown / easy.mean_bounded_slowdown)
        waits.append(ours.max_wait_s / easy.max_wait_s)
    return [
        Row(
            measure="batch logs: mean bounded slowdown by EASY's",
            unit="",
            ours=math.sqrt(math.prod(slowdowns)),
            must=0.54,
            aim=0.47,
            peers="UNICEF + EASY 0.564",
            lower=True,
            note="geometric mean of KTH SP2 and SDSC SP2, user estimates; ours learns lengths, they do not",
        ),
        Row(
            measure="batch logs: longest wait by EASY's",
            unit="",
            ours=max(waits),
            must=2.0,
            peers="UNICEF + EASY 1.45",
            lower=True,
            note="the worse of the two logs",
        ),
    ]


@contextmanager
def _told(what: str, total: int) -> Generator[Callable[[int], None]]:
    print(f"   {what}, {total:,} jobs", file=sys.stderr, flush=True)
    yield lambda done: None
