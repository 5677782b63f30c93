"""The Standard Workload Format: one line a job, 18 numbers, comments after ``;``.

The format is that of the Parallel Workloads Archive (Chapin et al., "Benchmarks and standards for
the evaluation of parallel job schedulers", JSSPP 1999). Times are whole seconds; -1 stands for
"unknown". A fraction, which some logs have, is cut off.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from towline.errors import InvalidDocument, Problem

COLUMNS = (
    "number",
    "submitted_s",
    "waited_s",
    "run_s",
    "processors",
    "cpu_s",
    "memory_kib",
    "requested_processors",
    "requested_s",
    "requested_memory_kib",
    "status",
    "user",
    "group",
    "executable",
    "queue",
    "partition",
    "preceding",
    "think_s",
)

MAX_PROBLEMS = 20
GZIP_MAGIC = b"\x1f\x8b"
_LARGEST = 1 << 62


class SwfRecord(NamedTuple):
    """One line as it stands, and its number in the file (1-based)."""

    line: int
    number: int
    submitted_s: int
    waited_s: int
    run_s: int
    processors: int
    cpu_s: int
    memory_kib: int
    requested_processors: int
    requested_s: int
    requested_memory_kib: int
    status: int
    user: int
    group: int
    executable: int
    queue: int
    partition: int
    preceding: int
    think_s: int


class SwfJob(NamedTuple):
    """A rigid job of an experiment: ``size`` processors for ``run_s``, of which a scheduler knows only
    ``requested_s``, the time at which the job would be ended."""

    number: int
    submitted_s: int
    run_s: int
    requested_s: int
    size: int
    user: int
    executable: int


class SwfTrace(NamedTuple):
    """``header``: the comments of the form ``; Label: value``, the first of each label."""

    header: dict[str, str]
    records: list[SwfRecord]

    @property
    def processors(self) -> int | None:
        """The machine's processors as the header states them (``MaxProcs``, else ``MaxNodes``)."""
        for label in ("MaxProcs", "MaxNodes"):
            if self.header.get(label, "").isdecimal():
                return int(self.header[label])
        return None


class SwfWorkload(NamedTuple):
    """``jobs`` in the order of their submission; ``skipped`` counts the records that are no jobs of it."""

    jobs: list[SwfJob]
    skipped: int


def read_swf(path: Path) -> SwfTrace:
    """A log from a file, plain or gzipped (told by its first bytes, not by its name).

    Raises ``InvalidDocument`` with the lines that do not parse, and ``OSError`` as the file does.
    """
    data = path.read_bytes()
    if data.startswith(GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError) as error:
            problem = Problem("", f"the compressed file is broken: {error}", "fetch the log again")
            raise InvalidDocument([problem], str(path)) from error
    # Comments hold names in whatever encoding their site had.
    return parse_swf(data.decode("utf-8", errors="replace").splitlines(), str(path))


def parse_swf(lines: Iterable[str], source: str = "") -> SwfTrace:
    """A log from its lines. Raises ``InvalidDocument`` with the first 20 lines that do not parse."""
    header: dict[str, str] = {}
    records: list[SwfRecord] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith(";"):
            label, colon, value = text.lstrip("; \t").partition(":")
            if colon:
                header.setdefault(label.strip(), value.strip())
        elif text:
            found = _record(number, text.partition(";")[0].split())
            if isinstance(found, Problem):
                problems.append(found)
                if len(problems) == MAX_PROBLEMS:
                    break
            else:
                records.append(found)
    if problems:
        raise InvalidDocument(problems, source)
    return SwfTrace(header, records)


def _record(line: int, fields: list[str]) -> SwfRecord | Problem:
    if len(fields) != len(COLUMNS):
        remedy = "a line of the Standard Workload Format has 18 numbers; write -1 for what is unknown"
        return Problem("", f"{len(fields)} fields, 18 expected", remedy, line)
    try:
        return SwfRecord(line, *map(int, fields))
    except ValueError:
        pass
    values: list[int] = []
    for column, field in enumerate(fields):
        value = _whole(field)
        if value is None:
            where = f"column {column + 1} ({COLUMNS[column]})"
            return Problem(where, f"{field!r} is not a number", "write a number, or -1 for unknown", line)
        values.append(value)
    return SwfRecord(line, *values)


def _whole(field: str) -> int | None:
    try:
        value = float(field)
    except ValueError:
        return None
    return int(value) if abs(value) < _LARGEST else None


def workload(records: Iterable[SwfRecord], processors: int) -> SwfWorkload:
    """The rigid jobs that a machine with that many processors can run.

    A job's size is what it asked for, else what it got; its requested time, where it is not positive,
    is its run time, and a job that ran longer counts as ended at its requested time. Records without
    a run time, without processors, or larger than the machine are skipped.
    """
    records = list(records)
    jobs = list(_jobs(records, processors))
    jobs.sort(key=lambda job: job.submitted_s)
    return SwfWorkload(jobs, len(records) - len(jobs))


def _jobs(records: list[SwfRecord], processors: int) -> Iterator[SwfJob]:
    for record in records:
        size = record.requested_processors if record.requested_processors > 0 else record.processors
        if record.run_s < 0 or not 0 < size <= processors:
            continue
        requested_s = record.requested_s if record.requested_s > 0 else record.run_s
        yield SwfJob(
            number=record.number,
            submitted_s=record.submitted_s,
            run_s=min(record.run_s, requested_s),
            requested_s=requested_s,
            size=size,
            user=record.user,
            executable=record.executable,
        )
