"""``resources.gpu`` in its three forms.

gpu: 2                       two whole devices
gpu: 0.5                     a share of one
gpu: {count: 1, model: [A100, H100], memory: 20Gi}        gpu: {slice: 1g.5gb}
"""

from __future__ import annotations

import re
from typing import Any, cast

from towline.model.document.lines import Where
from towline.model.document.reading import INVALID, Reading
from towline.model.job import Gpu
from towline.model.names import did_you_mean, kind, shown
from towline.model.units import parse_bytes, parse_gpu, show_bytes, show_cpu

MAX_MODELS = 64
MAX_MODEL_LENGTH = 128
MIN_MEMORY_BYTES = 1024**2

_FIELDS = ("count", "model", "memory", "slice")
_REMEDY = "write a number of devices such as 1, a share such as 0.5, or {count: 1, model: [A100]}"
_SLICE = re.compile(r"(?:[1-9]c\.)?[1-9]g\.[1-9][0-9]{0,3}gb(?:\+[a-z][a-z.]{0,15})*\Z")
_SLICE_REMEDY = "write a MIG profile such as 1g.5gb"


def read_gpu(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    """A Gpu; None where none are asked for (0)."""
    value = holder[key]
    if isinstance(value, dict):
        return _read_mapping(reading, cast("dict[Any, Any]", value), where)
    if isinstance(value, list):
        return reading.bad(where, "is a list", _REMEDY)
    value = reading.scalar(holder, key, where, _REMEDY)
    if value is INVALID:
        return value
    if not isinstance(value, bool) and value == 0:
        return None
    amount = _amount(reading, value, where)
    return INVALID if amount is None else Gpu(count=amount[0], milli=amount[1])


def _amount(reading: Reading, value: object, where: Where) -> tuple[int, int] | None:
    """(devices, thousandths of each)."""
    try:
        milli = parse_gpu(value)
    except ValueError as error:
        said = shown(value) if isinstance(value, str | bool | int | float) else kind(value)
        reading.bad(where, f"is {said}", str(error))
        return None
    return (milli // 1000, 1000) if milli % 1000 == 0 else (1, milli)


def _read_mapping(reading: Reading, mapping: dict[Any, Any], where: Where) -> Any:
    fields: dict[str, Any] = {}
    for name in mapping:
        place = Where(where, name if isinstance(name, str) else shown(name))
        if name not in _FIELDS:
            remedy = did_you_mean(name, _FIELDS) if isinstance(name, str) else "write a text"
            reading.bad(place, f"gpu has no field {shown(name)}", remedy)
        elif mapping[name] is None:
            continue
        elif name == "model":
            fields["model"] = _read_models(reading, mapping, place)
        elif name == "slice":
            fields["slice"] = _read_slice(reading, mapping, place)
        elif name == "memory":
            fields["memory_bytes"] = _read_memory(reading, mapping, place)
        else:
            value = reading.scalar(mapping, name, place, _REMEDY)
            amount = None if value is INVALID else _amount(reading, value, place)
            fields["count"], fields["milli"] = amount or (INVALID, INVALID)
    if reading.failed(*where.keys):
        return INVALID
    gpu = Gpu(**fields)
    return gpu if _checked(reading, gpu, where) else INVALID


def _checked(reading: Reading, gpu: Gpu, where: Where) -> bool:
    if gpu.slice is None:
        return True
    if gpu.milli < 1000:
        reading.bad(Where(where, "count"), "is a share, and slices are not shared", "write a whole number")
    if gpu.memory_bytes is not None:
        remedy = f"leave it out: {gpu.slice} says how much it has"
        reading.bad(Where(where, "memory"), "stands beside slice", remedy)
    return not reading.failed(*where.keys)


def _read_models(reading: Reading, mapping: dict[Any, Any], where: Where) -> Any:
    items = mapping["model"]
    if not isinstance(items, list):
        text = reading.text(mapping, "model", where)
        return (text,) if text is not INVALID and _model(reading, text, where) else INVALID
    items = cast("list[Any]", items)
    if not items or len(items) > MAX_MODELS:
        return reading.bad(where, f"has {len(items)} models", f"write 1 to {MAX_MODELS}, or leave it out")
    models: list[str] = []
    for at in range(len(items)):
        text = reading.text(items, at, Where(where, at))
        if text is not INVALID and _model(reading, text, Where(where, at)):
            models.append(text)
    return tuple(models)


def _model(reading: Reading, text: str, where: Where) -> bool:
    fine = bool(text.strip()) and text.isprintable() and len(text) <= MAX_MODEL_LENGTH
    if not fine:
        reading.bad(where, f"is {shown(text)}", "write the name of a model such as A100")
    return fine


def _read_slice(reading: Reading, mapping: dict[Any, Any], where: Where) -> Any:
    text = reading.text(mapping, "slice", where)
    if text is INVALID:
        return text
    if not _SLICE.match(text.lower()):
        return reading.bad(where, f"is {shown(text)}", _SLICE_REMEDY)
    return text.lower()


def _read_memory(reading: Reading, mapping: dict[Any, Any], where: Where) -> Any:
    value = reading.scalar(mapping, "memory", where, "write an amount such as 20Gi")
    if value is INVALID:
        return value
    try:
        amount = parse_bytes(value)
    except ValueError as error:
        said = shown(value) if isinstance(value, str | bool | int | float) else kind(value)
        return reading.bad(where, f"is {said}", str(error))
    if amount < MIN_MEMORY_BYTES:
        return reading.bad(where, f"is {shown(value)}", "write an amount such as 20Gi")
    return amount


def gpu_notation(gpu: Gpu) -> Any:
    """As a job file writes it, in the shortest form."""
    count = gpu.count if gpu.milli == 1000 else show_cpu(gpu.milli)
    if gpu == Gpu(count=gpu.count, milli=gpu.milli):
        return count
    tree: dict[str, Any] = {} if count == 1 else {"count": count}
    if len(gpu.model) == 1:
        tree["model"] = gpu.model[0]
    elif gpu.model:
        tree["model"] = gpu.model
    if gpu.memory_bytes is not None:
        tree["memory"] = show_bytes(gpu.memory_bytes)
    if gpu.slice is not None:
        tree["slice"] = gpu.slice
    return tree
