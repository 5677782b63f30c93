"""What makes elements equal for placement: all of one shape fit, or do not fit, on the same nodes."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, final
from weakref import WeakValueDictionary

import msgspec

from towline.core.lease import PROTECTION
from towline.model.job import Condition, Gpu, Preference, TaskSpec

WHOLE_MILLI = 1000
"""Thousandths of a whole device."""


@final
class Shape:
    """Made by ``shape_of`` only: equal shapes are one object, so that they compare and hash by identity.

    ``order`` is a number made of the contents, the same in every process: what has to be put in some
    order, with nothing else to tell shapes apart, is put in this one.
    """

    __slots__ = (
        "__weakref__",
        "cpu_milli",
        "disk_bytes",
        "gpu",
        "gpu_count",
        "gpu_milli",
        "memory_bytes",
        "order",
        "pids",
        "prefer",
        "require",
        "runtime",
        "spread",
        "tolerate",
        "where",
    )

    def __init__(self, spec: TaskSpec, order: int, require: tuple[str, ...]) -> None:
        asked = spec.resources
        self.order = order
        self.runtime: str = spec.runtime
        self.require = require
        self.cpu_milli = asked.cpu_milli
        self.memory_bytes = asked.memory_bytes
        self.pids = asked.pids
        self.disk_bytes = asked.disk_bytes or 0
        """0: it does not say what it writes."""
        self.gpu: Gpu | None = asked.gpu
        self.gpu_count = 0 if asked.gpu is None else asked.gpu.count
        """Devices (or slices, where ``gpu.slice`` names a profile)."""
        self.gpu_milli = 0 if asked.gpu is None else asked.gpu.milli
        """Thousandths of each of them: 1000, or less with one device."""
        self.where: tuple[Condition, ...] = spec.where
        self.prefer: tuple[Preference, ...] = spec.prefer
        self.spread = spec.spread
        self.tolerate: tuple[str, ...] = _sorted(spec.tolerate)

    @property
    def shares(self) -> bool:
        """Whether it asks for a part of one device."""
        return 0 < self.gpu_milli < WHOLE_MILLI

    @property
    def whole(self) -> bool:
        """Whether it asks for whole devices."""
        return self.gpu is not None and self.gpu.slice is None and self.gpu_milli == WHOLE_MILLI

    def __repr__(self) -> str:
        return f"<Shape {self.cpu_milli}m {self.memory_bytes} B {self.gpu or 'no gpu'} {self.order:x}>"


_known: WeakValueDictionary[tuple[Any, ...], Shape] = WeakValueDictionary()


def shape_of(spec: TaskSpec, leased: bool = False) -> Shape:
    """The shape of a task's elements. ``leased``: under on_disconnect: stop they need a node lease."""
    asked = spec.resources
    require = spec.require
    if leased and spec.on_disconnect == "stop":
        require = (*require, PROTECTION)
    require = require and _sorted(require)
    contents = (
        spec.runtime,
        require,
        asked.cpu_milli,
        asked.memory_bytes,
        asked.pids,
        asked.disk_bytes or 0,
        asked.gpu,
        spec.where,
        spec.prefer,
        spec.spread,
        spec.tolerate and _sorted(spec.tolerate),
    )
    shape = _known.get(contents)
    if shape is None:
        digest = blake2b(msgspec.msgpack.encode(contents), digest_size=8).digest()
        shape = _known[contents] = Shape(spec, int.from_bytes(digest) >> 1, require)
    return shape


def _sorted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))
