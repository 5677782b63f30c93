"""How far placement is from the optimum: small random pools against an exact solver (HiGHS).

Elements come one after another and stay; each is placed where the pool's rules say, or turned away. The
solver knows all of them beforehand and may place any selection: no scheduler that decides as they come
can be better. What counts is how much is placed: CPUs, or GPUs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import highspy

from benchmarks.figures import Figure, Options, Report, median_of
from towline.core.entries import Node
from towline.core.placement.choosing.rules import Rules
from towline.core.placement.nodes import Nodes
from towline.core.placement.policies.headroom import Headroom
from towline.core.placement.shape import Shape, shape_of
from towline.core.rows import GpuDevice, NodeRow
from towline.model.job import Gpu, Resources, TaskSpec

GIB = 2**30
SOLVER_LIMIT_S = 10.0
"""Where the solver takes longer, its upper bound stands for the optimum."""


class Instance(NamedTuple):
    """``worth`` of each element is what its placement counts."""

    nodes: list[NodeRow]
    elements: list[Shape]
    worth: list[int]


def cpu_instance(seed: int) -> Instance:
    """Five machines and elements for 1.2 times their CPUs, of mixed memory."""
    rng = random.Random(seed)
    nodes = [_node(at, rng.choice((8, 16)), rng.choice((32, 64)), 0) for at in range(5)]
    elements: list[Shape] = []
    while sum(each.cpu_milli for each in elements) < 1.2 * sum(node.cpu_milli for node in nodes):
        cpus, memory = rng.choice((1, 1, 2, 3, 4, 6)), rng.choice((1, 2, 4, 8, 16))
        elements.append(_shape(cpus * 1000, memory * GIB, None))
    return Instance(nodes, elements, [each.cpu_milli for each in elements])


def gpu_instance(seed: int) -> Instance:
    """Four machines with up to four devices, and elements for 1.2 times their devices: shares and whole."""
    rng = random.Random(seed)
    nodes = [_node(at, rng.choice((16, 32)), 128, rng.choice((2, 4))) for at in range(4)]
    elements: list[Shape] = []
    devices = sum(len(node.gpus) for node in nodes)
    while sum(each.gpu_count * each.gpu_milli for each in elements) < 1200 * devices:
        gpu = rng.choice(
            (Gpu(), Gpu(), Gpu(count=2), Gpu(milli=500), Gpu(milli=300), Gpu(milli=200), Gpu(milli=700))
        )
        cpu_milli = rng.choice((1, 2, 4, 8)) * 1000
        elements.append(_shape(cpu_milli, rng.choice((4, 8, 16)) * GIB, gpu))
    return Instance(nodes, elements, [each.gpu_count * each.gpu_milli for each in elements])


def mixed_instance(seed: int) -> Instance:
    """Two machines with devices and two without, and elements of both sorts for 1.2 times of either. What
    is placed counts by its part of the pool: of its devices, or of its CPUs where it asks for none."""
    rng = random.Random(seed)
    nodes = [_node(at, rng.choice((16, 32)), 128, rng.choice((2, 4)) if at % 2 else 0) for at in range(4)]
    devices, cpu_milli = sum(len(node.gpus) for node in nodes), sum(node.cpu_milli for node in nodes)
    elements: list[Shape] = []
    while sum(each.gpu_count * each.gpu_milli for each in elements) < 1200 * devices:
        gpu = rng.choice((Gpu(), Gpu(count=2), Gpu(milli=500), Gpu(milli=300)))
        elements.append(_shape(rng.choice((1, 2, 4, 8)) * 1000, rng.choice((4, 8, 16)) * GIB, gpu))
    while sum(each.cpu_milli for each in elements) < 1.2 * cpu_milli:
        elements.append(_shape(rng.choice((1, 2, 3, 4)) * 1000, rng.choice((2, 4, 8)) * GIB, None))
    rng.shuffle(elements)
    worth = [
        each.gpu_count * each.gpu_milli * 100 // devices
        if each.gpu
        else each.cpu_milli * 100_000 // cpu_milli
        for each in elements
    ]
    return Instance(nodes, elements, worth)


def _node(at: int, cpus: int, memory_gib: int, devices: int) -> NodeRow:
    gpus = tuple(GpuDevice(id=str(each), model="A", memory_bytes=16 * GIB) for each in range(devices))
    return NodeRow(
        id=f"n{at}",
        name=f"n{at}",
        instance="i",
        state="ready",
        cpu_milli=cpus * 1000,
        memory_bytes=memory_gib * GIB,
        pids=1000,
        labels={},
        runtimes={"process": None},
        gpus=gpus,
    )


def _shape(cpu_milli: int, memory_bytes: int, gpu: Gpu | None) -> Shape:
    asked = Resources(cpu_milli=cpu_milli, memory_bytes=memory_bytes, pids=1, gpu=gpu)
    return shape_of(TaskSpec(runtime="process", command=("true",), resources=asked))


# --- ours ---------------------------------------------------------------------------------------------
def placed_by(instance: Instance, rules: Rules) -> int:
    """How much is placed as the elements come."""
    nodes = Nodes(rules)
    for at, row in enumerate(instance.nodes):
        nodes.add(Node(row=row, column=at, connected=True, heard_at=0))
    total = 0
    for element, worth in zip(instance.elements, instance.worth, strict=True):
        rules.observe(element, 1)
        found = nodes.room(element, 1)
        if found:
            nodes.take(found[0][0], element, 1)
            total += worth
    return total


# --- the optimum --------------------------------------------------------------------------------------
def optimum(instance: Instance, limit_s: float = SOLVER_LIMIT_S) -> float:
    """The most that can be placed, or an upper bound of it where the solver runs out of time."""
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("time_limit", limit_s)
    solver.setOptionValue("threads", 1)
    there = [[solver.addBinary() for _ in instance.nodes] for _ in instance.elements]
    for row in there:
        solver.addConstr(solver.qsum(row) <= 1)
    for at, node in enumerate(instance.nodes):
        mine = [(element, there[each][at]) for each, element in enumerate(instance.elements)]
        solver.addConstr(solver.qsum(e.cpu_milli * x for e, x in mine) <= node.cpu_milli)
        # In GiB: the solver's numbers are floats.
        solver.addConstr(solver.qsum(e.memory_bytes // GIB * x for e, x in mine) <= node.memory_bytes // GIB)
        if node.gpus:
            _fit_devices(solver, mine, len(node.gpus))
    solver.maximize(
        solver.qsum(worth * x for worth, row in zip(instance.worth, there, strict=True) for x in row)
    )
    info = solver.getInfo()
    return max(info.mip_dual_bound, info.objective_function_value)


def _fit_devices(solver: highspy.Highs, mine: Sequence[tuple[Shape, object]], devices: int) -> None:
    """Whole devices and shares on the devices of one node."""
    used: list[list[object]] = [[] for _ in range(devices)]
    for element, x in mine:
        if element.gpu is None:
            continue
        on = [solver.addBinary() for _ in range(devices)]
        solver.addConstr(solver.qsum(on) == element.gpu_count * x)
        for device, y in zip(used, on, strict=True):
            device.append(element.gpu_milli * y)
    for device in used:
        solver.addConstr(solver.qsum(device) <= 1000)


# --- the benchmark ------------------------------------------------------------------------------------
def ratios(make: Callable[[int], Instance], rules: Callable[[], Rules], seeds: Sequence[int]) -> list[float]:
    """For each seed, what is placed by what could be."""
    found: list[float] = []
    for seed in seeds:
        instance = make(seed)
        found.append(placed_by(instance, rules()) / optimum(instance))
    return found


def run(options: Options) -> Report:
    seeds = range(1000, 1000 + options.count(40, least=4))
    cases: list[tuple[str, Callable[[int], Instance], Callable[[], Rules]]] = [
        ("CPUs, best fit", cpu_instance, Rules),
        ("GPUs, best fit", gpu_instance, Rules),
        ("GPUs, headroom", gpu_instance, lambda: Rules(policy=Headroom())),
        ("both, best fit", mixed_instance, Rules),
        ("both, headroom", mixed_instance, lambda: Rules(policy=Headroom())),
    ]
    figures: list[Figure] = []
    for name, make, rules in cases:
        found = ratios(make, rules, seeds)
        percents = [100 * ratio for ratio in found]
        figures.append(median_of(f"{name}: placed", percents, "% of the optimum"))
    return Report(
        name="packing",
        title="what is placed as it comes, by what an exact solver places that knows all of it before",
        method=f"{len(seeds)} random pools of 4 or 5 nodes, elements for 1.2 times what they have; HiGHS",
        figures=figures,
    )
