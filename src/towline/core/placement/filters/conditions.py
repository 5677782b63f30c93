"""``where``: what has to be true of a node's labels, name, runtimes and devices.

A property of a node is a tuple of texts: one for a label that is set, none where it is missing, several
for ``gpu.model``. A condition is about any of them:

    = in          one of them is one of the values (false where there is none)
    != not in     none of them is (true where there is none)
    exists        there is one                       absent    there is none
    < <= > >=     one of them is a number, and compares so; a text that is no number never does

The keys ``gpu.model`` and ``gpu.memory`` (in GiB) are about the devices that the element gets; for one
that asks for none, about any device of the node. A model is named in full or by words in it that
follow each other: ``A100`` is a ``NVIDIA A100-SXM4-40GB``.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

import numpy as np

from towline.core.placement.columns import Coded, Column, Mask, NodeColumns, Values
from towline.core.placement.ledger import Kind
from towline.core.placement.shape import Shape
from towline.model.job import Condition
from towline.model.units import human_bytes

GPU_MODEL, GPU_MEMORY = "gpu.model", "gpu.memory"
_GPU_KEYS = (GPU_MODEL, GPU_MEMORY)
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})\Z", re.ASCII)
_WORDS = re.compile(r"[a-z0-9.]+")
_GIB = 2**30


def holds(condition: Condition, values: Values) -> bool:
    """Whether a condition is true of a property with these values."""
    match condition.op:
        case "exists":
            return bool(values)
        case "absent":
            return not values
        case "=" | "in":
            return any(value in condition.values for value in values)
        case "!=" | "not in":
            return all(value not in condition.values for value in values)
        case _:
            asked = number(condition.values[0])
            return any(_compares(condition.op, number(value), asked) for value in values)


@lru_cache(maxsize=65_536)
def number(text: str) -> Decimal | None:
    """The number that a text is; None: it is none."""
    return Decimal(text) if _NUMBER.match(text) else None


def _compares(op: str, value: Decimal | None, asked: Decimal | None) -> bool:
    if value is None or asked is None:
        return False
    if op == "<":
        return value < asked
    if op == "<=":
        return value <= asked
    return value > asked if op == ">" else value >= asked


@lru_cache(maxsize=65_536)
def is_model(asked: str, model: str) -> bool:
    """Whether a device's model is the one that is asked for."""
    wanted, words = (_WORDS.findall(text.lower()) for text in (asked, model))
    return asked == model or (
        bool(wanted) and any(words[at : at + len(wanted)] == wanted for at in range(len(words)))
    )


# --- of devices ---------------------------------------------------------------------------------------
def kind_holds(condition: Condition, kind: Kind) -> bool:
    """Whether a condition on ``gpu.model`` or ``gpu.memory`` is true of a kind of device."""
    if condition.key == GPU_MEMORY:
        return holds(condition, (f"{Decimal(kind.memory_bytes) / _GIB:f}",))
    if condition.op in ("=", "in", "!=", "not in"):
        named = any(is_model(asked, kind.model) for asked in condition.values)
        return named == (condition.op in ("=", "in"))
    return condition.op == "exists"


@lru_cache(maxsize=65_536)
def kind_serves(shape: Shape, kind: Kind) -> bool:
    """Whether a device of this kind may be given to an element of this shape."""
    gpu = shape.gpu
    if gpu is None or gpu.slice != kind.slice or kind.memory_bytes < (gpu.memory_bytes or 0):
        return False
    if gpu.model and not any(is_model(asked, kind.model) for asked in gpu.model):
        return False
    return all(kind_holds(each, kind) for each in shape.where if each.key in _GPU_KEYS)


# --- of nodes -----------------------------------------------------------------------------------------
def about_nodes(shape: Shape) -> tuple[Condition, ...]:
    """The conditions on nodes as such: those on devices are the devices' filter's, where it asks for any."""
    if shape.gpu is None:
        return shape.where
    return tuple(each for each in shape.where if each.key not in _GPU_KEYS)


def condition_mask(nodes: NodeColumns, condition: Condition, columns: Column) -> Mask:
    """Of which of these columns a condition is true."""
    coded = _property(nodes, condition.key)
    if coded is None:
        return np.full(len(columns), holds(condition, ()), dtype=np.bool_)
    return _table(nodes, condition, coded)[coded.codes[columns]]


def _table(nodes: NodeColumns, condition: Condition, coded: Coded) -> Mask:
    if condition.key in _GPU_KEYS:
        return coded.where(lambda kinds: _devices_hold(nodes, condition, kinds))
    if condition.op in ("=", "in"):
        return coded.containing(condition.values)
    if condition.op in ("!=", "not in"):
        return ~coded.containing(condition.values)
    return coded.where(lambda values: holds(condition, values))


def _devices_hold(nodes: NodeColumns, condition: Condition, kinds: Values) -> bool:
    if condition.op in ("absent", "exists"):
        return holds(condition, kinds)
    found = [kind_holds(condition, nodes.kinds[int(kind)]) for kind in kinds]
    return all(found) if condition.op in ("!=", "not in") else any(found)


def _property(nodes: NodeColumns, key: str) -> Coded | None:
    if key == "node":
        return nodes.names
    if key in _GPU_KEYS:
        return nodes.device_kinds
    return nodes.can_run if key == "runtime" else nodes.labels.get(key)


def values_of(nodes: NodeColumns, key: str, column: int) -> Values:
    """A node's property, for people."""
    coded = _property(nodes, key)
    values = () if coded is None else coded.at(column)
    if key == GPU_MODEL:
        return tuple(dict.fromkeys(nodes.kinds[int(kind)].model for kind in values))
    if key == GPU_MEMORY:
        return tuple(human_bytes(nodes.kinds[int(kind)].memory_bytes) for kind in values)
    return values[:1] if key == "node" else values
