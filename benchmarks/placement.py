"""One placement in a large full pool: where does the next element go, and holding its part of that node."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from benchmarks.figures import Figure, Options, Report
from towline.core.entries import Node
from towline.core.placement.choosing.rules import Rules
from towline.core.placement.nodes import Nodes
from towline.core.placement.policies.headroom import Headroom
from towline.core.placement.shape import Shape, shape_of
from towline.core.rows import GpuDevice, NodeRow
from towline.model.job import Gpu, Resources, TaskSpec

GIB = 2**30
FULL = 0.95
MISSES = 500
Held = tuple[int, Shape, str | None]


def run(options: Options) -> Report:
    count, steps = options.count(10_000, least=500), options.count(4_000, least=400)
    figures: list[Figure] = []
    makers: list[tuple[str, Callable[[], Rules]]] = [
        ("best fit", Rules),
        ("headroom", lambda: Rules(policy=Headroom())),
    ]
    for name, rules in makers:
        nodes = _nodes(count, rules())
        held = _fill(nodes, random.Random(7))
        times = _placements(nodes, held, steps, random.Random(8))
        for kind, found in times.items():
            p99 = sorted(found)[len(found) * 99 // 100] * 1000
            figures.append(Figure(name=f"{name}, {kind}: p99", value=p99, unit="ms", most=3))
    return Report(
        name="placement",
        title=f"one placement: {count:,} nodes 95 % full, three tenths of them with 8 GPUs, 34 shapes",
        method=f"one ends and another one is placed, {steps:,} times; CPU time of the placement alone",
        figures=figures,
    )


def _nodes(count: int, rules: Rules) -> Nodes:
    nodes = Nodes(rules)
    gpus = tuple(GpuDevice(id=str(at), model="A100", memory_bytes=40 * GIB) for at in range(8))
    for at in range(count):
        row = NodeRow(
            id=f"n{at}",
            name=f"n{at}",
            instance="i",
            state="ready",
            cpu_milli=64_000,
            memory_bytes=256 * GIB,
            pids=100_000,
            labels={"zone": "abc"[at % 3]},
            runtimes={"process": None},
            gpus=gpus if at % 10 < 3 else (),
        )
        nodes.add(Node(row=row, column=at, connected=True, heard_at=0))
    return nodes


def _shapes() -> list[Shape]:
    asked = [(cpu, memory, None) for cpu in (500, 1000, 2000, 4000, 8000) for memory in (1, 2, 4, 8, 16)]
    asked += [(4000, 8, Gpu(count=count)) for count in (1, 1, 2, 4, 8)]
    asked += [(2000, 4, Gpu(milli=milli)) for milli in (100, 300, 500, 700)]
    return [
        shape_of(
            TaskSpec(
                runtime="process",
                command=("true",),
                resources=Resources(cpu_milli=cpu, memory_bytes=memory * GIB, pids=10, gpu=gpu),
            )
        )
        for cpu, memory, gpu in asked
    ]


def _fill(nodes: Nodes, rng: random.Random) -> list[Held]:
    held: list[Held] = []
    shapes, misses = _shapes(), 0
    # In some pools memory is full before.
    while nodes.free_cpu_milli.sum() > (1 - FULL) * nodes.capacity_cpu_milli.sum() and misses < MISSES:
        shape, left = rng.choice(shapes), 200
        nodes.rules.observe(shape, left)
        for column, room in nodes.room(shape, left):
            count = min(room, left)
            held += [(column, shape, devices) for devices in nodes.take(column, shape, count)]
            left -= count
            if not left:
                break
        misses += left == 200
    rng.shuffle(held)
    return held


def _placements(nodes: Nodes, held: list[Held], steps: int, rng: random.Random) -> dict[str, list[float]]:
    """Seconds of each placement: with and without GPUs."""
    shapes = _shapes()
    found: dict[str, list[float]] = {"without GPUs": [], "with GPUs": []}
    for step in range(steps):
        nodes.give(*held.pop())
        shape = rng.choice(shapes)
        begin = time.thread_time()
        room = nodes.room(shape, 1)
        devices = nodes.take(room[0][0], shape, 1) if room else []
        took = time.thread_time() - begin
        if room:
            held.insert(rng.randrange(len(held)), (room[0][0], shape, devices[0]))
        if step >= steps // 10:  # until then, each shape looks at all nodes for the first time
            found["without GPUs" if shape.gpu is None else "with GPUs"].append(took)
    return found
