"""Fields that are written in more than one way: a task's ``needs``, ``array`` and ``capabilities``, a job's
``pool``.

needs: split                                   array: 12           indexes 0 to 11
needs: [split, {task: count, each: true}]      array: 0-11         both ends included
                                               array: [de, fr]     a value each, as TOW_VALUE

capabilities: [NET_RAW, cap_sys_ptrace]        with CAP_ or without, in capitals or not

pool: gpu                                      pool: any           whichever pool suits
pool: [east, west]                             one of these
"""

from __future__ import annotations

import re
from typing import Any, cast

from towline.model.document.lines import Where
from towline.model.document.reading import INVALID, Reading
from towline.model.job import MAX_ELEMENTS, Array, Need
from towline.model.names import ANY_POOL, CAPABILITIES, POOL_NAME, POOL_NAME_RULE, did_you_mean, kind, shown

MAX_INDEX = 2**31 - 1

_RANGE = re.compile(r"\s*([0-9]{1,18})\s*-\s*([0-9]{1,18})\s*\Z")
_COUNT = re.compile(r"\s*[0-9]{1,18}\s*\Z")
_ARRAY_REMEDY = "write a range such as 0-11, a count such as 12, or a list of values"
_NEEDS_REMEDY = "write [split] or [{task: split, each: true}]"


def read_needs(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    """A name, or a list of names and of mappings of ``task`` and ``each``."""
    items = holder[key]
    if not isinstance(items, list):
        need = _read_need(reading, holder, key, where)
        return (need,) if need is not INVALID else ()
    seen = reading.needs_seen
    needs: list[Need] = []
    for at, item in enumerate(cast("list[Any]", items)):
        need = seen.get(item) if isinstance(item, str) else None
        if need is None:
            need = _read_need(reading, items, at, Where(where, at))
        if need is not INVALID:
            needs.append(need)
    return tuple(needs)


def _read_need(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    item = holder[key]
    if isinstance(item, dict):
        return _read_need_mapping(reading, cast("dict[Any, Any]", item), where)
    if item is None or isinstance(item, list):
        what = kind(cast("object", item))
        return reading.bad(where, f"is {what}, not the name of a task", _NEEDS_REMEDY)
    name = reading.text(holder, key, where)
    if name is INVALID:
        return name
    need = Need(task=name)
    if name == item:
        reading.needs_seen[name] = need
    return need


def _read_need_mapping(reading: Reading, item: dict[Any, Any], where: Where) -> Any:
    for name in item:
        if name not in ("task", "each"):
            remedy = did_you_mean(name, ("task", "each")) if isinstance(name, str) else ""
            return reading.bad(where, f"a need has no field {shown(name)}", remedy)
    if "task" not in item:
        return reading.bad(Where(where, "task"), "is missing", _NEEDS_REMEDY)
    task = reading.text(item, "task", Where(where, "task"))
    each = reading.scalar(item, "each", Where(where, "each")) if "each" in item else False
    if each is INVALID or task is INVALID:
        return INVALID
    if not isinstance(each, bool):
        return reading.bad(Where(where, "each"), f"is {shown(each)}", "write true or false")
    return Need(task=task, each=each)


def read_array(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    """A range, a count or a list of values."""
    if isinstance(holder[key], list):
        return _read_values(reading, holder[key], where)
    value = reading.scalar(holder, key, where)
    if value is INVALID:
        return value
    if isinstance(value, str) and (match := _RANGE.match(value)) is not None:
        return _checked(reading, where, int(match[1]), int(match[2]), value)
    if isinstance(value, str) and _COUNT.match(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        said = shown(value) if isinstance(value, str | bool | int | float) else kind(value)
        return reading.bad(where, f"is {said}", _ARRAY_REMEDY)
    if value < 1:
        return reading.bad(where, f"is {shown(value)}: an array has at least one element", _ARRAY_REMEDY)
    return _checked(reading, where, 0, value - 1, value)


def _checked(reading: Reading, where: Where, first: int, last: int, value: str | int) -> Any:
    if first > last:
        return reading.bad(where, f"is {shown(value)}: it ends before it begins", f"write {last}-{first}")
    if last > MAX_INDEX:
        return reading.bad(where, f"is {shown(value)}", f"the highest index is {MAX_INDEX}")
    if last - first + 1 > MAX_ELEMENTS:
        return reading.bad(
            where, f"has {last - first + 1:,} elements", f"a job has at most {MAX_ELEMENTS:,}: split it"
        )
    return Array(first=first, last=last)


def _read_values(reading: Reading, items: list[Any], where: Where) -> Any:
    if not items:
        return reading.bad(where, "is an empty list: an array has at least one element", _ARRAY_REMEDY)
    values = [reading.text(items, at, Where(where, at)) for at in range(len(items))]
    if any(value is INVALID for value in values):
        return INVALID
    return Array(first=0, last=len(values) - 1, values=tuple(values))


MOST_POOLS = 200
"""That one job names: each of them is asked about it."""
_POOL_REMEDY = "write the name of a pool, any, or a list such as [east, west]"


def read_pools(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    """A pool's name, ``any``, or a list of names, each once."""
    if isinstance(holder[key], dict):
        return reading.bad(where, "is a mapping, not the name of a pool", _POOL_REMEDY)
    if not isinstance(holder[key], list):
        name = _read_pool(reading, holder, key, where)
        return name if name is INVALID else (name,)
    items = cast("list[Any]", holder[key])
    if not items:
        return reading.bad(where, "is an empty list", _POOL_REMEDY)
    if len(items) > MOST_POOLS:
        remedy = f"name up to {MOST_POOLS}, or write pool: any"
        return reading.bad(where, f"names {len(items)} pools", remedy)
    found: dict[str, None] = {}
    for at in range(len(items)):
        name, place = _read_pool(reading, items, at, Where(where, at)), Where(where, at)
        if name is INVALID:
            continue
        if name == ANY_POOL and len(items) > 1:
            reading.bad(place, "is 'any' beside other pools", "write pool: any, or the pools' names alone")
        elif name in found:
            reading.bad(place, f"names {shown(name)} again", "name each pool once")
        found[name] = None
    return tuple(found)


def _read_pool(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    if isinstance(holder[key], list | dict) or holder[key] is None:
        return reading.bad(where, f"is {kind(holder[key])}, not the name of a pool", _POOL_REMEDY)
    name = reading.text(holder, key, where)
    if name is INVALID or name == ANY_POOL or POOL_NAME.match(name):
        return name
    return reading.bad(where, f"the name is {shown(name)}", POOL_NAME_RULE)


def read_capabilities(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    """Linux capabilities, each once, without ``CAP_``."""
    items = holder[key]
    if not isinstance(items, list):
        return reading.bad(where, f"is {kind(items)}, not a list", "write a list such as [NET_RAW]")
    items = cast("list[Any]", items)
    found: dict[str, None] = {}
    for at in range(len(items)):
        text = reading.text(items, at, Where(where, at))
        if text is INVALID:
            continue
        name = text.upper().removeprefix("CAP_")
        if name in CAPABILITIES:
            found[name] = None
        elif name == "ALL":
            reading.bad(Where(where, at), "is 'ALL'", "name each that is needed, or write privileged: true")
        else:
            remedy = did_you_mean(name, CAPABILITIES)
            reading.bad(Where(where, at), f"there is no capability {shown(text)}", remedy)
    return tuple(found)
