"""openb: the nodes and pods of Alibaba's GPU cluster (2023), and the inflation experiment on them.

The data are the CSV pair of ``alibaba/clusterdata``, ``cluster-trace-gpu-v2023``, plain or gzipped. The
experiment is that of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023): the cluster is empty, pods
come one at a time in a random order, more are drawn with replacement until they ask for 1.3 times the
GPUs that there are; a pod that fits somewhere is placed, one that fits nowhere is dropped, nobody leaves.

All is read into plain tuples; what is random comes from a seed only.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from towline.errors import InvalidDocument, Problem

GPU_MILLI = 1000
"""Thousandths of a whole GPU."""
INFLATION = 1.3
"""How much the pods ask for in the end, in terms of the cluster's GPUs."""
MAX_PROBLEMS = 20

_NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
_POD_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
_GZIP_MAGIC = b"\x1f\x8b"


class OpenbNode(NamedTuple):
    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


class OpenbPod(NamedTuple):
    """``gpu_milli``: thousandths of each of ``gpus`` GPUs, 1000 for whole ones, 0 without GPUs.
    ``models``: the accepted ones, any where empty."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    gpu_milli: int
    models: tuple[str, ...]

    @property
    def total_gpu_milli(self) -> int:
        return self.gpus * self.gpu_milli


def read_nodes(path: Path) -> list[OpenbNode]:
    """The nodes, by name. Raises InvalidDocument, OSError."""
    rows = _rows(path, _NODE_COLUMNS)
    numbers = _Numbers()
    nodes = [
        OpenbNode(
            row["sn"],
            numbers.read(line, row, "cpu_milli"),
            numbers.read(line, row, "memory_mib"),
            numbers.read(line, row, "gpu"),
            row["model"],
        )
        for line, row in rows
    ]
    numbers.check()
    return sorted(nodes)


def read_pods(path: Path) -> list[OpenbPod]:
    """The pods, by name. Raises InvalidDocument, OSError."""
    numbers = _Numbers()
    pods = [_pod(line, row, numbers) for line, row in _rows(path, _POD_COLUMNS)]
    numbers.check()
    return sorted(pods)


def _pod(line: int, row: dict[str, str], numbers: _Numbers) -> OpenbPod:
    gpus, milli = numbers.read(line, row, "num_gpu"), numbers.read(line, row, "gpu_milli")
    if (gpus > 1 and milli != GPU_MILLI) or (gpus and not 0 < milli <= GPU_MILLI):
        numbers.refuse(line, "gpu_milli", f"1 to {GPU_MILLI} of one GPU, or {GPU_MILLI} of each of several")
    return OpenbPod(
        row["name"],
        numbers.read(line, row, "cpu_milli"),
        numbers.read(line, row, "memory_mib"),
        gpus,
        milli if gpus else 0,
        tuple(sorted(filter(None, (row.get("gpu_spec") or "").split("|")))),
    )


# --- the experiment -----------------------------------------------------------------------------------
def capacity_gpu_milli(nodes: Iterable[OpenbNode]) -> int:
    """Thousandths of GPUs that the cluster has."""
    return sum(node.gpus for node in nodes) * GPU_MILLI


class Experiment(NamedTuple):
    """One seed's: pods in the order of their coming, nodes in the order in which ties go to them."""

    nodes: list[OpenbNode]
    pods: list[OpenbPod]


def inflated(
    nodes: Sequence[OpenbNode], pods: Sequence[OpenbPod], seed: int, ratio: float = INFLATION
) -> Experiment:
    """Shuffle the pods, which are sorted by name; then append more, drawn uniformly with replacement from
    all of them, until the next would ask for more than ``ratio`` times the cluster's GPUs. Where they ask
    for more already, pods at random are removed until they do not. Then shuffle the nodes.

    Raises ValueError where no pod asks for a GPU.
    """
    if not any(pod.total_gpu_milli for pod in pods):
        raise ValueError("no pod asks for a GPU, so that no number of them reaches a demand on GPUs")
    random, drawn_from, order = Random(seed), sorted(pods), sorted(nodes)
    goal = int(ratio * capacity_gpu_milli(nodes))
    coming = list(drawn_from)
    random.shuffle(coming)
    asked = sum(pod.total_gpu_milli for pod in coming)
    while asked > goal:
        asked -= coming.pop(random.randrange(len(coming))).total_gpu_milli
    if len(coming) == len(drawn_from):
        while (pod := random.choice(drawn_from)).total_gpu_milli + asked <= goal:
            coming.append(pod)
            asked += pod.total_gpu_milli
    random.shuffle(order)
    return Experiment(order, coming)


def arrived_percent(pods: Iterable[OpenbPod], capacity_milli: int) -> list[int]:
    """After each pod: what has come so far asks for so many % of the GPUs, rounded, halves upwards."""
    percent: list[int] = []
    asked = 0
    for pod in pods:
        asked += pod.total_gpu_milli
        percent.append((200 * asked + capacity_milli) // (2 * capacity_milli))
    return percent


def allocation_at(
    percent: int, arrived: Sequence[int], allocated_milli: Sequence[int], capacity_milli: int
) -> float:
    """GPU allocation in % at this arrived demand: the mean over the pods after which it rounds to it.

    ``arrived``: as ``arrived_percent`` gives it. ``allocated_milli``: what was allocated after each pod.
    Raises ValueError where the demand never was that.
    """
    found = [milli for at, milli in zip(arrived, allocated_milli, strict=True) if at == percent]
    if not found:
        raise ValueError(f"the arrived demand never was {percent} % of the GPUs")
    return 100 * sum(found) / len(found) / capacity_milli


# --- reading ------------------------------------------------------------------------------------------
class _Numbers:
    """Reads whole numbers, and keeps what was wrong until all is read."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []

    def read(self, line: int, row: dict[str, str], column: str) -> int:
        text = row[column] or ""
        if text.isdecimal():
            return int(text)
        self.refuse(line, column, f"a whole number, not {text!r}")
        return 0

    def refuse(self, line: int, column: str, wanted: str) -> None:
        self._problems.append(
            Problem(where=column, message=f"is to be {wanted}", remedy="correct the file", line=line)
        )

    def check(self) -> None:
        if self._problems:
            raise InvalidDocument(self._problems[:MAX_PROBLEMS])


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    data = path.read_bytes()
    if data.startswith(_GZIP_MAGIC):
        data = gzip.decompress(data)
    reader = csv.DictReader(io.StringIO(data.decode("utf-8", "replace"), newline=""))
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        remedy = f"give an openb file, whose first line names {', '.join(columns)}"
        raise InvalidDocument(
            [Problem(where=str(path), message=f"has no column {missing[0]!r}", remedy=remedy, line=1)]
        )
    return [(line, row) for line, row in enumerate(reader, 2)]
