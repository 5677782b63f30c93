"""Filters on what a node is, whatever runs there: its state, runtimes, protections, labels, taints."""

from __future__ import annotations

import numpy as np

from towline.core.lease import PROTECTION
from towline.core.placement.columns import Coded, Column, Mask, NodeColumns, Values
from towline.core.placement.filters.conditions import about_nodes, condition_mask, values_of
from towline.core.placement.filters.filter import Filter, Misfit, grouped
from towline.core.placement.shape import Shape
from towline.model.job import Condition

OPEN: Values = ("open",)
UNCONNECTED: Values = ("the node is not connected",)
DRAINED: Values = ("the node is being drained",)
RUNS, FAILS = "runs", "fails"


# --- open ---------------------------------------------------------------------------------------------
def _is_open(nodes: NodeColumns, shape: Shape, columns: Column) -> Mask:
    return nodes.state.containing(OPEN)[nodes.state.codes[columns]]


def _why_closed(nodes: NodeColumns, shape: Shape, columns: Column) -> list[Misfit]:
    reasons = [" ".join(nodes.state.at(int(column))) for column in columns]
    return grouped("open", reasons, "the node is not open")


# --- runtime and protections --------------------------------------------------------------------------
def _runs_it(nodes: NodeColumns, shape: Shape, columns: Column) -> Mask:
    coded = nodes.runtimes.get(shape.runtime)
    return _none(columns) if coded is None else coded.containing((RUNS,))[coded.codes[columns]]


def _why_not_run(nodes: NodeColumns, shape: Shape, columns: Column) -> list[Misfit]:
    coded = nodes.runtimes.get(shape.runtime)
    text = f"cannot run the {shape.runtime} runtime"
    problems = [_runtime(coded, int(column))[1:2] for column in columns]
    reasons = [f"{text}: {problem[0]}" if problem and problem[0] else text for problem in problems]
    return grouped("runtime", reasons, text, permanent=True)


def _runtime(coded: Coded | None, column: int) -> Values:
    return () if coded is None else coded.at(column)


def _protects(nodes: NodeColumns, shape: Shape, columns: Column) -> Mask:
    coded = nodes.runtimes.get(shape.runtime)
    if not shape.require:
        return np.ones(len(columns), dtype=np.bool_)
    if coded is None:
        return _none(columns)
    wanted = set(shape.require)
    return coded.where(lambda given: wanted.issubset(given[1:]))[coded.codes[columns]]


def _why_not_protected(nodes: NodeColumns, shape: Shape, columns: Column) -> list[Misfit]:
    coded = nodes.runtimes.get(shape.runtime)
    reasons: list[str] = []
    for column in columns:
        given = _runtime(coded, int(column))[1:]
        missing = [name for name in shape.require if name not in given]
        reasons.append(
            f"cannot end what the {shape.runtime} runtime runs by a node lease, as on_disconnect: stop needs"
            if missing == [PROTECTION]
            else f"{', '.join(missing)} required, which the {shape.runtime} runtime does not give here"
        )
    return grouped("require", reasons, "lacks what is required", permanent=True)


# --- where --------------------------------------------------------------------------------------------
def _meets(nodes: NodeColumns, shape: Shape, columns: Column) -> Mask:
    mask = np.ones(len(columns), dtype=np.bool_)
    for condition in about_nodes(shape):
        mask &= condition_mask(nodes, condition, columns)
    return mask


def _why_not_met(nodes: NodeColumns, shape: Shape, columns: Column) -> list[Misfit]:
    found: list[Misfit] = []
    for condition in about_nodes(shape):
        passed = condition_mask(nodes, condition, columns)
        wanted = condition_text(condition)
        reasons = [f"{wanted}, {_is(nodes, condition, int(column))}" for column in columns[~passed]]
        found += grouped("where", reasons, f"{wanted}, is another", permanent=True)
        columns = columns[passed]
    return found


def condition_text(condition: Condition) -> str:
    """``label zone=b wanted``, ``gpu.model A100 or H100 wanted``."""
    known = condition.key in ("node", "runtime", "gpu.model", "gpu.memory", "site")
    name = condition.key if known else f"label {condition.key}"
    if condition.op in ("exists", "absent"):
        return f"{name} wanted {'to be set' if condition.op == 'exists' else 'not to be set'}"
    values = " or ".join(condition.values[:5]) + (" or …" if len(condition.values) > 5 else "")
    sign = {"in": "=", "not in": "!="}.get(condition.op, condition.op)
    return f"{name}{sign}{values} wanted"


def _is(nodes: NodeColumns, condition: Condition, column: int) -> str:
    values = values_of(nodes, condition.key, column)
    return f"is {', '.join(values)}" if values else "is not set"


# --- taints -------------------------------------------------------------------------------------------
def _tolerates(nodes: NodeColumns, shape: Shape, columns: Column) -> Mask:
    table = nodes.taints.where(lambda taints: not _intolerable(shape, taints))
    return table[nodes.taints.codes[columns]]


def _intolerable(shape: Shape, taints: Values) -> list[str]:
    """The taints that keep this shape away: ``key`` tolerates a key with any value."""
    return [
        taint
        for taint in taints
        if taint not in shape.tolerate and taint.partition("=")[0] not in shape.tolerate
    ]


def _why_tainted(nodes: NodeColumns, shape: Shape, columns: Column) -> list[Misfit]:
    reasons = [
        f"taint {', '.join(_intolerable(shape, nodes.taints.at(int(column))))} not tolerated"
        for column in columns
    ]
    return grouped("taint", reasons, "other taints not tolerated", permanent=True)


def _none(columns: Column) -> Mask:
    return np.zeros(len(columns), dtype=np.bool_)


def is_there(nodes: NodeColumns, columns: Column) -> Mask:
    """Which of these nodes take elements, or did and will again."""
    there = nodes.state.where(lambda state: state in (OPEN, UNCONNECTED, DRAINED))
    return there[nodes.state.codes[columns]]


IS_OPEN = Filter("open", True, _is_open, _why_closed)
STANDING = (
    IS_OPEN,
    Filter("runtime", True, _runs_it, _why_not_run),
    Filter("require", True, _protects, _why_not_protected),
    Filter("where", True, _meets, _why_not_met),
    Filter("taint", True, _tolerates, _why_tainted),
)
