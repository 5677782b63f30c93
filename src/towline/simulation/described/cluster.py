"""A cluster as a file describes it: groups of equal nodes.

nodes:
  plain: {count: 40, cpu: 64, memory: 256Gi}
  gpu:   {count: 8, cpu: 96, memory: 768Gi, gpu: {count: 8, model: A100, memory: 80Gi}, taints: [gpu]}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from towline.core.rows import GpuDevice, NodeRow
from towline.errors import InvalidDocument, Problem
from towline.model.document.lines import Where
from towline.model.document.reading import Reading
from towline.model.job import ByteCount, CpuMilli
from towline.model.names import did_you_mean
from towline.simulation.described.reading import read_described

MOST_NODES = 100_000
MOST_DEVICES = 64
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?\Z")
_EXAMPLE = "nodes: {plain: {count: 10, cpu: 16, memory: 64Gi}}"
RUNTIMES: dict[str, str | None] = {"oci": None, "docker": None, "process": None}


class GpuSpec(Struct, frozen=True, kw_only=True):
    """The GPUs of one node. ``memory_bytes``: of each; None: no element that asks for a device's memory
    fits. ``slice``: they are MIG slices of this profile."""

    count: int = 1
    model: str = "GPU"
    memory_bytes: ByteCount | None = None
    slice: str | None = None


class GroupSpec(Struct, frozen=True, kw_only=True):
    """``count`` equal nodes. ``disk_bytes``: None, not limited."""

    cpu_milli: CpuMilli
    memory_bytes: ByteCount
    count: int = 1
    pids: int = 1_000_000
    disk_bytes: ByteCount | None = None
    gpu: GpuSpec | None = None
    labels: dict[str, str] = {}
    taints: tuple[str, ...] = ()


class ClusterSpec(Struct, frozen=True, kw_only=True):
    nodes: dict[str, GroupSpec]


class Group(NamedTuple):
    """Nodes that are alike; more of them would be like the first."""

    name: str
    nodes: list[NodeRow]


class Cluster(NamedTuple):
    groups: list[Group]

    @property
    def nodes(self) -> list[NodeRow]:
        return [node for group in self.groups for node in group.nodes]


def read_cluster(path: Path) -> Cluster:
    """Raises InvalidDocument with all problems and their lines."""
    described = read_described(path, ClusterSpec, _check, _EXAMPLE)
    return Cluster([Group(name, _nodes(name, group)) for name, group in described.nodes.items()])


def _check(reading: Reading, cluster: ClusterSpec) -> None:
    top = Where(None, "nodes")
    if not cluster.nodes and not reading.failed("nodes"):
        reading.bad(top, "has no group of nodes", f"write {_EXAMPLE}")
    for name, group in cluster.nodes.items():
        where = Where(top, name)
        if not _NAME.match(name):
            remedy = "write 1 to 63 lower-case letters, digits, '.', '_' or '-'"
            reading.bad(where, f"{name!r} is no name of nodes", remedy)
        _check_number(reading, where, "count", group.count, 0, MOST_NODES)
        _check_number(reading, where, "pids", group.pids, 1, 2**40)
        if group.gpu is not None:
            _check_number(reading, Where(where, "gpu"), "count", group.gpu.count, 1, MOST_DEVICES)
    total = sum(group.count for group in cluster.nodes.values())
    if total > MOST_NODES:
        reading.bad(top, f"has {total} nodes in all", f"write at most {MOST_NODES}")


def _check_number(reading: Reading, where: Where, field: str, value: object, least: int, most: int) -> None:
    place = Where(where, field)
    if isinstance(value, int) and not least <= value <= most and not reading.failed(*place.keys):
        reading.bad(place, f"is {value}", f"write {least} to {most}")


def _nodes(name: str, group: GroupSpec) -> list[NodeRow]:
    digits = len(str(max(group.count - 1, 0)))
    return [_node(f"{name}-{number:0{digits}}", group) for number in range(group.count)]


def _node(name: str, group: GroupSpec) -> NodeRow:
    gpu = group.gpu
    devices = () if gpu is None else tuple(_device(str(at), gpu) for at in range(gpu.count))
    return NodeRow(
        id=name,
        name=name,
        instance="simulated",
        state="ready",
        cpu_milli=group.cpu_milli,
        memory_bytes=group.memory_bytes,
        pids=group.pids,
        labels=dict(group.labels),
        runtimes=RUNTIMES,
        gpus=devices,
        taints=group.taints,
        disk_bytes=group.disk_bytes or 0,
    )


def _device(id: str, gpu: GpuSpec) -> GpuDevice:
    return GpuDevice(id=id, model=gpu.model, memory_bytes=gpu.memory_bytes or 0, slice=gpu.slice)


def grouped(rows: Iterable[NodeRow]) -> Cluster:
    """Nodes that are there already, by what they have; a group is called as the first of them."""
    groups: dict[bytes, Group] = {}
    for row in rows:
        alike = msgspec.structs.replace(row, id="", name="", instance="", state="ready")
        key = msgspec.json.encode(alike)
        groups.setdefault(key, Group(row.name, [])).nodes.append(row)
    return Cluster(list(groups.values()))


def changed(cluster: Cluster, more: Mapping[str | None, int], option: str) -> Cluster:
    """The cluster with so many nodes more (below zero: fewer) of each group; None: of all groups, in
    proportion to their sizes. Raises InvalidDocument that names the option."""
    by_name = {group.name: group for group in cluster.groups}
    counts = {name: len(group.nodes) for name, group in by_name.items()}
    for name, count in more.items():
        if name is None:
            for each, part in zip(by_name, shared_out(count, list(counts.values())), strict=True):
                counts[each] += part
        elif name in by_name:
            counts[name] += count
        else:
            remedy = did_you_mean(name, by_name)
            raise InvalidDocument([Problem(option, f"there is no group of nodes {name!r}", remedy)])
    wrong = [name for name, count in counts.items() if not 0 <= count <= MOST_NODES]
    if wrong or not any(counts.values()):
        sizes = ", ".join(f"{name} ({len(group.nodes)})" for name, group in by_name.items())
        what = _outside(wrong[0], counts[wrong[0]]) if wrong else "leaves no node"
        raise InvalidDocument([Problem(option, what, f"the groups of nodes are {sizes}")])
    return Cluster([_sized(group, counts[group.name]) for group in cluster.groups])


def _outside(name: str, count: int) -> str:
    if count < 0:
        return f"takes {-count:,} more nodes of {name!r} away than there are"
    return f"makes {count:,} nodes of {name!r}, more than {MOST_NODES:,}"


def _sized(group: Group, count: int) -> Group:
    nodes = group.nodes[:count]
    for number in range(len(nodes), count):
        name = f"{group.name}-new-{number}"
        nodes.append(msgspec.structs.replace(group.nodes[0], id=name, name=name))
    return Group(group.name, nodes)


def shared_out(count: int, sizes: Sequence[int]) -> list[int]:
    """``count`` in whole parts in proportion to sizes; what is over goes to the largest rests, the first
    of equal ones first."""
    sign, total = (-1 if count < 0 else 1), max(sum(sizes), 1)
    parts = [abs(count) * size // total for size in sizes]
    rests = sorted(range(len(sizes)), key=lambda at: (-(abs(count) * sizes[at] % total), at))
    for at in rests[: abs(count) - sum(parts)]:
        parts[at] += 1
    return [sign * part for part in parts]
