"""The jobs that are measured, as trees of a job file, and as files for ``tow run``."""

from __future__ import annotations

import json
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from towline.model.views import JobView

Tree = dict[str, Any]

SMALL = {"cpu": 0.05, "memory": "16Mi"}
"""40 at a time on 2 CPUs."""


def true(**fields: Any) -> Tree:
    return {"runtime": "process", "command": ["true"], "resources": SMALL, **fields}


def array(count: int, **fields: Any) -> Tree:
    return {"name": "array", "tasks": {"t": true(array=count)}, **fields}


def single() -> Tree:
    return {"name": "single", "tasks": {"t": true()}}


def independent(count: int) -> Tree:
    return {"name": "independent", "tasks": {f"t{at}": true() for at in range(count)}}


def layers(count: int, depth: int) -> Tree:
    """``count`` tasks in ``depth`` layers, each needing all of the layer before."""
    width = count // depth
    names = [[f"l{layer}-{at}" for at in range(width)] for layer in range(depth)]
    tasks = {name: true() for name in names[0]}
    for above, layer in pairwise(names):
        tasks |= {name: true(needs=above) for name in layer}
    return {"name": "layers", "tasks": tasks}


def chain(count: int) -> Tree:
    needs = [{"needs": [f"s{at - 1}"]} if at else {} for at in range(count)]
    return {"name": "chain", "tasks": {f"s{at}": true(**need) for at, need in enumerate(needs)}}


def written(tree: Tree, folder: Path) -> str:
    """The tree as a job file; its path."""
    path = folder / f"{tree['name']}.json"
    path.write_text(json.dumps(tree))
    return str(path)


def length_s(view: JobView) -> float:
    """From a job's acceptance to its end, as its record says. Raises RuntimeError unless it succeeded."""
    if view.state != "succeeded" or view.ended_at is None:
        raise RuntimeError(f"job {view.name} ended {view.state}: {view.message}")
    return seconds_between(view.submitted_at, view.ended_at)


def seconds_between(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
