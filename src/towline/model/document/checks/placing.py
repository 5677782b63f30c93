"""Checks of what a task says about its place among nodes, and among other work."""

from __future__ import annotations

from towline.model.document.conditions import GPU_KEYS, key_fault
from towline.model.document.lines import Where
from towline.model.document.reading import Reading
from towline.model.job import TaskSpec
from towline.model.names import label_value_fault, shown
from towline.model.units import show_duration

MAX_TOLERATIONS = 64
MAX_LIMIT_KEY = 256


def check_placing(reading: Reading, task: TaskSpec, where: Where) -> None:
    """Note what is wrong with spread, tolerate, limit and expect; where and prefer are checked when read."""
    if task.spread is not None and not reading.failed(*where.keys, "spread"):
        _check_spread(reading, task.spread, Where(where, "spread"))
    if not reading.failed(*where.keys, "tolerate"):
        _check_tolerate(reading, task.tolerate, Where(where, "tolerate"))
    if task.limit is not None and not reading.failed(*where.keys, "limit"):
        key = task.limit.key
        if not key.strip() or len(key) > MAX_LIMIT_KEY or not key.isprintable():
            remedy = f"write up to {MAX_LIMIT_KEY} characters on one line, such as database"
            reading.bad(Where(Where(where, "limit"), "key"), f"is {shown(key)}", remedy)
    timeout, expect = task.timeout_ms, task.expect_ms
    if timeout is not None and expect is not None and expect > timeout:
        reading.bad(
            Where(where, "expect"),
            f"is {show_duration(expect)}, and after {show_duration(timeout)} it is stopped",
            "make timeout at least as long as expect",
        )


def _check_spread(reading: Reading, label: str, where: Where) -> None:
    fault = key_fault(label)
    if fault is not None:
        reading.bad(where, *fault)
    elif label in (*GPU_KEYS, "runtime"):
        reading.bad(
            where, f"is {shown(label)}, of which a node may have several", "write a label, node or site"
        )


def _check_tolerate(reading: Reading, taints: tuple[str, ...], where: Where) -> None:
    if len(taints) > MAX_TOLERATIONS:
        reading.bad(where, f"has {len(taints)} taints", f"at most {MAX_TOLERATIONS}")
        return
    for at, taint in enumerate(taints):
        key, equals, value = taint.partition("=")
        fault = key_fault(key)
        if fault is not None:
            reading.bad(Where(where, at), f"is {shown(taint)}", "write KEY or KEY=VALUE, such as gpu")
        elif equals and (rule := label_value_fault(value)) is not None:
            reading.bad(Where(where, at), f"is {shown(taint)}", rule)
