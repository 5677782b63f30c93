"""``where`` and ``prefer``: conditions on nodes in a few characters.

    where:
      zone: b                       is b                  disk: "!= hdd"          is not hdd
      gpu.model: [A100, H100]       is one of these       disk: not in [hdd]      is none of these
      ram_gb: ">= 64"               as numbers            ssd: exists             has the label at all
      ram_gb: {">=": 64, "<": 512}  several of one label  old: absent             does not have it
      state: "= exists"             the text itself

    prefer: {zone: b}     prefer: [{zone: b, weight: 10}, {ssd: exists}]

Read from there and written back in the shortest form that reads the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast, get_args

from towline.model.document.lines import Where
from towline.model.document.reading import INVALID, Reading
from towline.model.job import Condition, Operator, Preference
from towline.model.names import LABEL_NAME, LABEL_NAME_RULE, did_you_mean, kind, label_value_fault, shown

MAX_CONDITIONS = 64
MAX_VALUES = 1_000
MAX_WEIGHT = 1_000
GPU_MODEL = "gpu.model"
GPU_KEYS = (GPU_MODEL, "gpu.memory")
"""What is asked of devices; memory in GiB."""

_OPERATORS: tuple[str, ...] = get_args(Operator)
_COMPARISONS = ("<", "<=", ">", ">=")
_SIGNED = re.compile(r"\s*(==|!=|<=|>=|=|<|>)\s*(.*?)\s*\Z", re.DOTALL)
_LISTED = re.compile(r"\s*(not\s+in|in)\s+(.*?)\s*\Z", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})\Z", re.ASCII)
_REMEDY = 'write a value, a list of values, "!= VALUE", ">= NUMBER", exists or absent'
_EXAMPLE = "{zone: b, gpu.model: [A100, H100]}"

Parsed = tuple[Operator, tuple[str, ...]]


def read_conditions(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    """``where``: a mapping, or a list of mappings."""
    found: list[Condition] = []
    for mapping, place in _mappings(reading, holder[key], where):
        for name in mapping:
            for op, values in _read_label(reading, mapping, name, place):
                found.append(Condition(key=name, op=op, values=values))
    return _bounded(reading, found, where)


def read_preferences(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    """``prefer``: the same, and in each mapping ``weight`` for all that stands in it."""
    found: list[Preference] = []
    for mapping, place in _mappings(reading, holder[key], where):
        weight = _read_weight(reading, mapping, place)
        if list(mapping) == ["weight"]:
            reading.bad(place, "has a weight, but says not for what", "write {zone: b, weight: 10}")
        for name in mapping:
            if name == "weight":
                continue
            for op, values in _read_label(reading, mapping, name, place):
                found.append(Preference(key=name, op=op, values=values, weight=weight))
    return _bounded(reading, found, where)


def _mappings(reading: Reading, value: Any, where: Where) -> Iterable[tuple[dict[Any, Any], Where]]:
    remedy = f"write a mapping such as {_EXAMPLE}"
    if isinstance(value, dict):
        yield cast("dict[Any, Any]", value), where
    elif isinstance(value, list):
        for at, item in enumerate(cast("list[Any]", value)):
            if isinstance(item, dict):
                yield cast("dict[Any, Any]", item), Where(where, at)
            else:
                reading.bad(Where(where, at), f"is {kind(item)}, not a mapping", remedy)
    else:
        reading.bad(where, f"is {kind(value)}, not a mapping", remedy)


def _bounded(reading: Reading, found: list[Any], where: Where) -> Any:
    if len(found) > MAX_CONDITIONS:
        return reading.bad(where, f"has {len(found)} conditions", f"at most {MAX_CONDITIONS}")
    return tuple(found)


def _read_weight(reading: Reading, mapping: dict[Any, Any], where: Where) -> int:
    if "weight" not in mapping:
        return 1
    place, remedy = Where(where, "weight"), f"write a whole number from 1 to {MAX_WEIGHT:,}"
    value = reading.scalar(mapping, "weight", place, remedy)
    if value is INVALID:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_WEIGHT:
        said = shown(value) if isinstance(value, str | bool | int | float) else kind(value)
        reading.bad(place, f"is {said}", remedy)
        return 1
    return value


def _read_label(reading: Reading, mapping: dict[Any, Any], name: Any, where: Where) -> list[Parsed]:
    """The conditions on one label; none where something is wrong with them, which is noted."""
    place = Where(where, name if isinstance(name, str) else shown(name))
    if not isinstance(name, str):
        reading.bad(place, f"{shown(name)} is not a label", "write a text")
        return []
    fault = key_fault(name)
    if fault is not None:
        reading.bad(place, *fault)
        return []
    return [
        each for each in _read_value(reading, mapping, name, place) if _checked(reading, name, each, place)
    ]


def _read_value(reading: Reading, mapping: dict[Any, Any], name: str, where: Where) -> list[Parsed]:
    value = mapping[name]
    if isinstance(value, dict):
        return _read_operators(reading, cast("dict[Any, Any]", value), where)
    if isinstance(value, list):
        return _read_values(reading, mapping, name, where, "in")
    if value is None:
        reading.bad(where, "is empty", 'write exists, absent, a value, or "" for an empty one')
        return []
    text = reading.text(mapping, name, where)
    if text is INVALID:
        return []
    try:
        return [parse_condition(text)]
    except ValueError as error:
        reading.bad(where, f"is {shown(text)}", str(error))
        return []


def key_fault(key: str) -> tuple[str, str] | None:
    """Why no node can be told by this key, and what to write instead."""
    if not LABEL_NAME.match(key):
        return f"the name is {shown(key)}", LABEL_NAME_RULE
    if key.startswith("gpu.") and key not in GPU_KEYS:
        return f"of GPUs there is no {shown(key)}", did_you_mean(key, GPU_KEYS)
    return None


def parse_condition(text: str) -> Parsed:
    """The operator and values of a condition written as text. Raises ValueError with a remedy."""
    word = text.strip()
    if word in ("exists", "absent"):
        return cast("Operator", word), ()
    if word in ("!exists", "not exists"):
        raise ValueError("write absent")
    signed = _SIGNED.match(text)
    if signed is not None:
        op, value = signed[1].replace("==", "="), signed[2]
        if value.startswith("[") and op in ("=", "!="):
            raise ValueError(f"write {'not in' if op == '!=' else 'in'} [A, B]")
        if value == "":
            raise ValueError(f"write what comes after {op}")
        return cast("Operator", op), (value,)
    listed = _LISTED.match(text)
    if listed is not None:
        op, rest = "in" if listed[1] == "in" else "not in", listed[2]
        if not (rest.startswith("[") and rest.endswith("]")):
            raise ValueError(f"write {op} [A, B], or = before it if this is the value")
        values = tuple([value.strip() for value in rest[1:-1].split(",")])
        if not all(values):
            raise ValueError(f"write {op} [A, B]")
        return op, values
    return "=", (text,)


def _read_operators(reading: Reading, mapping: dict[Any, Any], where: Where) -> list[Parsed]:
    """``{">=": 64, "<": 512}``: operators, and what they compare with, taken as it is."""
    if not mapping:
        reading.bad(where, "is empty", _REMEDY)
    found: list[Parsed] = []
    for name in mapping:
        place = Where(where, name if isinstance(name, str) else shown(name))
        if name not in _OPERATORS:
            remedy = did_you_mean(name, _OPERATORS) if isinstance(name, str) else "write a text"
            reading.bad(place, f"{shown(name)} is no comparison", remedy)
        elif name in ("exists", "absent"):
            if mapping[name] is True:
                found.append((name, ()))
            else:
                other = "absent" if name == "exists" else "exists"
                reading.bad(place, f"is {shown(mapping[name])}", f"write {name}: true, or {other}: true")
        elif name in ("in", "not in"):
            found += _read_values(reading, mapping, name, place, name)
        else:
            text = reading.text(mapping, name, place)
            if text is not INVALID:
                found.append((cast("Operator", name), (text,)))
    return found


def _read_values(reading: Reading, holder: Any, key: Any, where: Where, op: Operator) -> list[Parsed]:
    items = holder[key]
    if not isinstance(items, list):
        reading.bad(where, f"is {kind(items)}, not a list", "write a list such as [A, B]")
        return []
    items = cast("list[Any]", items)
    if not items or len(items) > MAX_VALUES:
        reading.bad(where, f"has {len(items):,} values", f"write 1 to {MAX_VALUES:,}")
        return []
    values = [reading.text(items, at, Where(where, at)) for at in range(len(items))]
    return [] if any(value is INVALID for value in values) else [(op, tuple(values))]


def _checked(reading: Reading, key: str, parsed: Parsed, where: Where) -> bool:
    op, values = parsed
    for value in values:
        fault = label_value_fault(value)
        if fault is not None:
            reading.bad(where, f"has {shown(value)}", fault)
            return False
        if op in _COMPARISONS and not _NUMBER.match(value):
            remedy = f'labels are compared as plain numbers: write "{op} 64"'
            reading.bad(where, f"{op} is for numbers, and {shown(value)} is none", remedy)
            return False
    if key == GPU_MODEL and op in _COMPARISONS:
        reading.bad(where, f"{op} is for numbers, and models are names", "write a list of models")
        return False
    return True


# --- and back ---------------------------------------------------------------------------------------


def conditions_notation(conditions: tuple[Condition, ...]) -> Any:
    """``where`` as a job file writes it: a mapping, or a list of them where a key is not alone."""
    keys = [condition.key for condition in conditions]
    if len(set(keys)) == len(keys):
        return {each.key: _short(each.op, each.values) for each in conditions}
    return tuple([{each.key: _short(each.op, each.values)} for each in conditions])


def preferences_notation(preferences: tuple[Preference, ...]) -> Any:
    """``prefer`` as a job file writes it."""
    if all(each.weight == 1 for each in preferences):
        return conditions_notation(tuple([each.condition for each in preferences]))
    return tuple([{each.key: _short(each.op, each.values), "weight": each.weight} for each in preferences])


def _short(op: str, values: tuple[str, ...]) -> Any:
    if op == "in":
        return values
    if op == "not in":
        return {op: values}
    text = op if not values else values[0] if op == "=" else f"{op} {values[0]}"
    for candidate in (text, f"= {text}"):
        try:
            if parse_condition(candidate) == (op, values):
                return candidate
        except ValueError:
            continue
    return {op: values[0]}
