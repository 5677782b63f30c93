"""GPUs, labels and taints as an operator writes them: ``A100:40Gi x4, 1g.5gb x2``.

GPUs are parted by commas: a model, its memory behind a colon, how many behind an ``x``. A MIG slice is
written as its profile, ``MODEL/PROFILE`` where the model matters. They are numbered in that order.
"""

from __future__ import annotations

import re

from towline.core.rows import GpuDevice
from towline.model.names import LABEL_NAME, LABEL_NAME_RULE, label_value_fault
from towline.model.units import parse_bytes

EXAMPLE = "A100:40Gi x4, 1g.5gb x2"
MAX_GPUS = 1024

_ITEM = re.compile(
    r"\s*([A-Za-z0-9][A-Za-z0-9 ._/+-]*?)(?::([0-9.]+[A-Za-z]*))?(?:\s*x\s*([0-9]{1,4}))?\s*\Z"
)
_PROFILE = re.compile(r"(?:(.+)/)?([0-9]+g\.([0-9]+)gb(?:\+[a-z.]+)?)\Z")


def parse_gpus(value: object) -> tuple[GpuDevice, ...]:
    """Raises ValueError with what to write instead. An empty text: no GPUs, whatever the machine has."""
    found: list[GpuDevice] = []
    for item in _items(value, f"GPUs are written as {EXAMPLE}"):
        match = _ITEM.match(item)
        if match is None:
            raise ValueError(f"{item!r} is no GPU: write them as {EXAMPLE}")
        name, memory, count = match[1], match[2], int(match[3] or 1)
        for _ in range(count):
            found.append(_gpu(str(len(found)), name, memory, found))
    if len(found) > MAX_GPUS:
        raise ValueError(f"a node has at most {MAX_GPUS} GPUs")
    return tuple(found)


def _gpu(name: str, model: str, memory: str | None, before: list[GpuDevice]) -> GpuDevice:
    profile = _PROFILE.match(model)
    memory_bytes = 0 if memory is None else parse_bytes(memory)
    if profile is None:
        return GpuDevice(id=name, model=model, memory_bytes=memory_bytes)
    of = profile[1] or (before[0].model if before else "MIG")
    return GpuDevice(
        id=name,
        model=of,
        memory_bytes=memory_bytes or int(profile[3]) * 2**30,
        slice=profile[2],
    )


def parse_labels(value: object) -> tuple[tuple[str, str], ...]:
    """``zone=a,ssd=yes`` or a table. Raises ValueError with what to write instead."""
    if isinstance(value, dict):
        pairs = [(str(key), str(text)) for key, text in value.items()]
    else:
        pairs = [_pair(item) for item in _items(value, "labels are written as zone=a,ssd=yes")]
    for key, text in pairs:
        fault = label_value_fault(text)
        if not LABEL_NAME.match(key):
            raise ValueError(f"{key!r} is no name of a label: {LABEL_NAME_RULE}")
        if fault is not None:
            raise ValueError(f"label {key} is {text!r}: {fault}")
    return tuple(dict(pairs).items())


def _pair(item: str) -> tuple[str, str]:
    key, _, text = item.partition("=")
    return key.strip(), text.strip()


def parse_taints(value: object) -> tuple[str, ...]:
    """``gpu=yes,old`` or a list. Raises ValueError with what to write instead."""
    taints = [_pair(item) for item in _items(value, "taints are written as gpu=yes,old")]
    for key, text in taints:
        if not LABEL_NAME.match(key) or label_value_fault(text) is not None:
            raise ValueError(f"{key!r} is no taint: write them as gpu=yes,old")
    return tuple(f"{key}={text}" if text else key for key, text in dict(taints).items())


def _items(value: object, rule: str) -> list[str]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError(rule)
    return [item.strip() for item in items if item.strip()]
