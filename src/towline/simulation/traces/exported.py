"""Towline's own event log, as ``tow events export`` writes it, as a workload.

Submissions come when they came, with what they asked for; an attempt takes as long as that element's
attempt of the same number took, from its assignment on, and ends alike. Lost, preempted and cancelled
attempts tell nothing of a length. Where the log tells none (what never ran, or runs still), a mean
stands in: of the task, of tasks of that name, of ``expect``, of everything.
"""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from towline.core.commands import AttemptKey, Cancel, SetQueue
from towline.core.queues.policies.slowdown import Slowdown
from towline.core.queues.tree import DEFAULT
from towline.core.queues.usage import HALF_LIFE_MS
from towline.core.rows import GpuDevice, NodeRow
from towline.errors import InvalidDocument, Problem
from towline.model.document import load_tree
from towline.model.job import JobSpec
from towline.model.states import Reason
from towline.model.views import GpuView, NodeView, QueueView
from towline.simulation.described.cluster import RUNTIMES, Cluster, grouped
from towline.simulation.described.policies import parents_first
from towline.simulation.replay.workload import Ending, Submission, Workload
from towline.simulation.traces.swf import GZIP_MAGIC, MAX_PROBLEMS

VERSION = 1
UNKNOWN_MS = 60_000
_PIDS = 1_000_000
_TELLS_NOTHING = (Reason.CANCELLED, Reason.PREEMPTED, Reason.SUPERSEDED)
_AT_LEAST = 1
"""Nothing takes no time at all."""


class Line(Struct, kw_only=True):
    """Any line of the file; which fields there are depends on ``kind``."""

    kind: str
    version: int = VERSION
    at: str = ""
    job: str | None = None
    data: dict[str, Any] = {}
    spec: dict[str, Any] | None = None
    node: NodeView | None = None
    queue: QueueView | None = None


class Exported(NamedTuple):
    """``nodes``: as they were at the export; so are ``order`` (inside queues) and ``half_life_ms`` (of
    what namespaces have used)."""

    workload: Workload
    nodes: Cluster
    order: str
    half_life_ms: int


Element = tuple[str, str, int]
"""(job, task, index)."""


class _Log:
    """What has been read so far."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.ended_ms = 0
        self.nodes: list[NodeRow] = []
        self.queues: list[QueueView] = []
        self.jobs: dict[str, Submission] = {}
        self.cancels: list[tuple[int, Cancel]] = []
        self.endings: defaultdict[Element, list[Ending]] = defaultdict(list)
        self.seen_ms: dict[Element, int] = {}
        """The longest that attempts have run whose length is not known."""
        self.assigned: dict[Element, int] = {}
        self.without: set[str] = set()
        """Jobs of which the log does not have the submission."""
        self._decoder = msgspec.json.Decoder(Line)

    def take(self, number: int, text: bytes) -> None:
        """One line. Raises InvalidDocument."""
        try:
            line = self._decoder.decode(text)
            self._take(line)
        except InvalidDocument as error:
            problems = [each._replace(line=number, where=f"spec.{each.where}") for each in error.problems]
            raise InvalidDocument(problems, self.source) from None
        except (msgspec.MsgspecError, KeyError, ValueError, TypeError) as error:
            what = f"has no {error}" if isinstance(error, KeyError) else f"is no line of an export: {error}"
            problem = Problem("", what, "write the file anew with `tow events export`", number)
            raise InvalidDocument([problem], self.source) from None

    def _take(self, line: Line) -> None:
        if line.kind == "export" and line.version != VERSION:
            raise ValueError(f"it has version {line.version}, this tow reads {VERSION}")
        if line.node is not None:
            self._node(line.node)
        elif line.queue is not None:
            self.queues.append(line.queue)
        elif line.job is not None:
            self._event(line, _ms(line.at))

    def _node(self, view: NodeView) -> None:
        if view.state in ("ready", "disconnected"):
            self.nodes.append(_node_row(view))

    def _event(self, line: Line, at_ms: int) -> None:
        job, data = line.job or "", line.data
        self.ended_ms = max(self.ended_ms, at_ms)
        if line.kind == "job.submitted":
            if line.spec is None:
                raise KeyError("spec")
            spec, namespace = load_tree(line.spec), str(data["namespace"])
            self.jobs[job] = Submission(at_ms, job, spec, namespace, namespace)
        elif job not in self.jobs:
            self.without.add(job)
        elif line.kind == "job.cancel_requested":
            cancel = Cancel(job=job, task=data["task"], index=data["index"], kill=bool(data["kill"]))
            self.cancels.append((at_ms, cancel))
        elif line.kind == "elements.assigned":
            for index, _ in data["elements"]:
                self.assigned[job, data["task"], int(index)] = at_ms
        elif line.kind in ("attempt.finished", "attempt.lost"):
            self._ended((job, data["task"], int(data["index"])), line.kind, data, at_ms)

    def _ended(self, element: Element, kind: str, data: dict[str, Any], at_ms: int) -> None:
        self.assigned.pop(element, None)
        begin = int(data["assigned_at"] or at_ms)
        length = max(_AT_LEAST, int(data["finished_at"] or at_ms) - begin)
        if kind == "attempt.finished" and data["reason"] not in _TELLS_NOTHING:
            code = None if data["exit_code"] is None else int(data["exit_code"])
            self.endings[element].append(Ending(length, code, str(data["reason"])))
        else:
            self.seen_ms[element] = max(length, self.seen_ms.get(element, 0))


def read_export(path: Path) -> Exported:
    """A file of ``tow events export``, plain or gzipped. Raises InvalidDocument and OSError."""
    data = path.read_bytes()
    if data.startswith(GZIP_MAGIC):
        data = gzip.decompress(data)
    return parse_export(data.split(b"\n"), str(path))


def parse_export(lines: Iterable[bytes], source: str = "") -> Exported:
    """Raises InvalidDocument with the first lines that are wrong."""
    log, problems = _Log(source), list[Problem]()
    for number, text in enumerate(lines, 1):
        if text.strip():
            try:
                log.take(number, text)
            except InvalidDocument as error:
                problems += error.problems
                if len(problems) >= MAX_PROBLEMS:
                    break
    if problems:
        raise InvalidDocument(problems[:MAX_PROBLEMS], source)
    if not log.jobs:
        problem = Problem("", "has no submission of a job", "take an earlier --since for the export")
        raise InvalidDocument([problem], source)
    for element, at_ms in log.assigned.items():
        log.seen_ms[element] = max(log.ended_ms - at_ms, log.seen_ms.get(element, 0))
    submissions = sorted(log.jobs.values(), key=lambda one: one.at_ms)
    lengths = Lengths(log.jobs, log.endings, log.seen_ms)
    workload = Workload(
        submissions, lengths.ending, log.cancels, _queues(log), len(log.without), lengths.unknown()
    )
    order, half_life_s = next(((each.order, each.usage_half_life_s) for each in log.queues), ("", 0))
    half_life_ms = round(half_life_s * 1000) or HALF_LIFE_MS
    return Exported(workload, grouped(log.nodes), order or Slowdown.name, half_life_ms)


class Lengths:
    """How long each attempt takes. ``endings``: of each element in the order of its attempts; ``seen_ms``:
    how long attempts have run at least whose length is not known."""

    def __init__(
        self,
        jobs: dict[str, Submission],
        endings: dict[Element, list[Ending]],
        seen_ms: dict[Element, int],
    ) -> None:
        self._names = {job: tuple(one.spec.tasks) for job, one in jobs.items()}
        self._specs: dict[str, JobSpec] = {job: one.spec for job, one in jobs.items()}
        self._endings, self._seen_ms = endings, seen_ms
        self._longest: dict[tuple[str, str], int] = {}
        """The most that was seen of a task's attempts whose length is not known."""
        for (job, task, _), ms in seen_ms.items():
            self._longest[job, task] = max(ms, self._longest.get((job, task), 0))
        self._sums: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
        for (job, task, _), found in endings.items():
            for kind in ((), self._kind(job, task), (job, task, "")):
                self._sums[kind][0] += sum(ending.length_ms for ending in found)
                self._sums[kind][1] += len(found)

    def _kind(self, job: str, task: str) -> tuple[str, ...]:
        return self._specs[job].name, task

    def ending(self, key: AttemptKey) -> Ending:
        job, position, index, number = key
        task = self._names[job][position]
        found = self._endings.get((job, task, index))
        if found:
            return found[min(number, len(found)) - 1]
        return Ending(max(self._guess(job, task), self._seen_ms.get((job, task, index), 0)))

    def _guess(self, job: str, task: str) -> int:
        spec = self._specs[job].tasks[task]
        own = self._mean((job, task, ""))
        means = [own, self._mean(self._kind(job, task)), spec.expect_ms, self._mean(())]
        guess = next((mean for mean in means if mean is not None), UNKNOWN_MS)
        if own is None:
            guess = max(guess, self._longest.get((job, task), 0))
        return max(_AT_LEAST, min(guess, spec.timeout_ms or guess))

    def _mean(self, kind: tuple[str, ...]) -> int | None:
        total, count = self._sums.get(kind, (0, 0))
        return total // count if count else None

    def unknown(self) -> int:
        """Elements whose length is a guess."""
        sizes = [
            1 if task.array is None else task.array.size
            for spec in self._specs.values()
            for task in spec.tasks.values()
        ]
        return sum(sizes) - len(self._endings)


def _queues(log: _Log) -> list[SetQueue]:
    """The queues of the export, parents first, and those that were there when jobs named them."""
    there = {view.name: view for view in log.queues}
    named = dict.fromkeys(one.spec.queue for one in log.jobs.values())
    gone = [SetQueue(name=name) for name in named if name not in there and name != DEFAULT]
    order = parents_first({view.name: view.parent for view in log.queues})
    return [*(_queue(there[name]) for name in order), *gone]


def _queue(view: QueueView) -> SetQueue:
    return SetQueue(
        name=view.name,
        parent=view.parent,
        weight_milli=round(view.weight * 1000),
        guaranteed=_amounts(view.guaranteed),
        maximum=_amounts(view.maximum),
        max_priority=view.max_priority,
        max_active=view.max_active,
    )


def _amounts(given: dict[str, float]) -> dict[str, int | None]:
    milli = ("cpu", "gpu")
    return {name: round(amount * 1000) if name in milli else round(amount) for name, amount in given.items()}


def _node_row(view: NodeView) -> NodeRow:
    return NodeRow(
        id=view.id,
        name=view.name,
        instance="simulated",
        state="ready",
        cpu_milli=round(view.cpu * 1000),
        memory_bytes=view.memory_bytes,
        pids=_PIDS,
        labels=view.labels,
        runtimes=RUNTIMES,
        gpus=tuple(map(_device, view.gpus)),
        taints=tuple(view.taints),
        disk_bytes=view.disk_bytes,
    )


def _device(view: GpuView) -> GpuDevice:
    return GpuDevice(id=view.id, model=view.model, memory_bytes=view.memory_bytes, slice=view.slice)


def _ms(at: str) -> int:
    """Unix milliseconds. Raises ValueError."""
    moment = datetime.fromisoformat(at)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000
