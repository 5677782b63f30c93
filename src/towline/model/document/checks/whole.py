"""Checks of the job as a whole: names, labels, bounds; tasks and needs by the files beside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from towline.model import names
from towline.model.document.checks.graph import check_graph
from towline.model.document.checks.notify import check_notify
from towline.model.document.checks.task import check_task
from towline.model.document.lines import Where
from towline.model.document.reading import Reading
from towline.model.job import MAX_ELEMENTS, MAX_TASKS, JobSpec
from towline.model.names import shown

MAX_LABELS = 64
MAX_PARAMS = 1_000


def check_job(reading: Reading, spec: JobSpec, tree: dict[str, Any]) -> None:
    """Note everything that is wrong with the job. ``tree`` says which fields the user wrote."""
    if not reading.failed("name"):
        _check_name(reading, Where(None, "name"), spec.name, names.JOB_NAME, names.JOB_NAME_RULE)
    if not reading.failed("queue"):
        _check_name(reading, Where(None, "queue"), spec.queue, names.QUEUE_NAME, names.QUEUE_NAME_RULE)
    _check_labels(reading, spec)
    check_notify(reading, spec)
    tasks_at = Where(None, "tasks")
    if not spec.tasks and not reading.failed("tasks"):
        reading.bad(tasks_at, "is empty: a job has at least one task", "write tasks: {NAME: {…}}")
    if len(spec.tasks) > MAX_TASKS:
        reading.bad(tasks_at, f"has {len(spec.tasks):,} tasks", f"a job has at most {MAX_TASKS:,}: split it")
        return
    elements = sum(task.array.size for task in spec.tasks.values() if task.array is not None)
    if elements > MAX_ELEMENTS:
        reading.bad(tasks_at, f"have {elements:,} elements together", f"a job has at most {MAX_ELEMENTS:,}")
    written: Any = tree.get("tasks")
    for name, task in spec.tasks.items():
        where = Where(tasks_at, name)
        _check_name(reading, where, name, names.TASK_NAME, names.TASK_NAME_RULE)
        check_task(reading, task, where, written[name])
    check_graph(reading, spec)


def check_params(reading: Reading, params: Iterable[str]) -> None:
    """Note what is wrong with the names of parameters."""
    where = Where(None, "params")
    for count, name in enumerate(params):
        if count == MAX_PARAMS:
            reading.bad(where, f"has over {MAX_PARAMS:,} parameters", "use fewer")
            return
        _check_name(reading, Where(where, name), name, names.PARAM_NAME, names.PARAM_NAME_RULE)


def _check_name(reading: Reading, where: Where, name: str, pattern: Any, rule: str) -> None:
    if not pattern.match(name):
        reading.bad(where, f"the name is {shown(name)}", rule)


def _check_labels(reading: Reading, spec: JobSpec) -> None:
    where = Where(None, "labels")
    if len(spec.labels) > MAX_LABELS:
        reading.bad(where, f"has {len(spec.labels)} labels", f"at most {MAX_LABELS}")
        return
    for name, value in spec.labels.items():
        _check_name(reading, Where(where, name), name, names.LABEL_NAME, names.LABEL_NAME_RULE)
        fault = names.label_value_fault(value)
        if fault is not None:
            reading.bad(Where(where, name), f"is {shown(value)}", fault)
