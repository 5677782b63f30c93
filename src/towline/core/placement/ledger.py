"""The devices of one node, and who holds how much of each: exact, by device.

An element holds whole devices (text ``0,3``), thousandths of one (``2:500``) or MIG slices, which are
devices of their own and are written like whole ones. What is held stays on record also of a device
that the node does not have any more, until it is given back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from towline.core.placement.shape import WHOLE_MILLI, Shape
from towline.core.rows import GpuDevice


class Kind(NamedTuple):
    """What makes devices equal; ``slice`` is a MIG profile, None for a device as a whole."""

    model: str
    memory_bytes: int
    slice: str | None


class Device(NamedTuple):
    id: str
    kind: Kind


Eligible = Callable[[Kind], bool]


class Ledger:
    """``whole`` are the node's devices in its own order, ``slices`` its MIG slices."""

    def __init__(self) -> None:
        self.whole: list[Device] = []
        self.slices: list[Device] = []
        self.held: dict[str, int] = {}
        """By id: thousandths that are held; only what is not 0."""

    def put(self, gpus: Iterable[GpuDevice]) -> None:
        """Take over which devices the node has; what is held stays so."""
        by_id = {gpu.id: Device(gpu.id, Kind(gpu.model, gpu.memory_bytes, gpu.slice)) for gpu in gpus}
        self.whole = [device for device in by_id.values() if device.kind.slice is None]
        self.slices = [device for device in by_id.values() if device.kind.slice is not None]

    def free(self, device: Device) -> int:
        return max(0, WHOLE_MILLI - self.held.get(device.id, 0))

    def free_milli(self) -> list[int]:
        """What is free of each whole device."""
        return [self.free(device) for device in self.whole]

    def free_slices(self) -> dict[Kind, int]:
        """How many slices of each kind are free."""
        counts: dict[Kind, int] = {}
        for device in self.slices:
            counts[device.kind] = counts.get(device.kind, 0) + (device.id not in self.held)
        return counts

    def take(self, shape: Shape, eligible: Eligible, first: int | None = None) -> str:
        """Give one element its devices, which must be free; returns their text."""
        text = self.choose(shape, eligible, first)
        self.hold(text)
        return text

    def choose(self, shape: Shape, eligible: Eligible, first: int | None = None) -> str:
        """The devices that ``take`` would give, which must be free.

        The weakest device that will do is given (the least memory, then the least that is left of
        it), so that the others stay for what asks for more; several are of one kind where they can be.
        ``first``: the place in ``whole`` of the device that a policy has chosen for a share.
        """
        devices = self.slices if shape.gpu is not None and shape.gpu.slice is not None else self.whole
        fitting: list[tuple[int, int, int]] = []
        serves: dict[Kind, bool] = {}
        for at, device in enumerate(devices):
            kind, free = device.kind, self.free(device)
            if kind not in serves:
                serves[kind] = eligible(kind)
            if free >= shape.gpu_milli and serves[kind]:
                fitting.append((kind.memory_bytes, free, at))
        chosen = _of_one_kind(devices, sorted(fitting), shape.gpu_count)
        if first is not None and any(at == first for _, _, at in fitting):
            chosen = [first]
        if len(chosen) < shape.gpu_count:
            raise AssertionError(f"{len(chosen)} devices are free, and {shape.gpu_count} were to be taken")
        return devices_text([devices[at].id for at in sorted(chosen)], shape.gpu_milli)

    def hold(self, text: str) -> None:
        for name, milli in parse_devices(text):
            self.held[name] = self.held.get(name, 0) + milli

    def give(self, text: str) -> None:
        for name, milli in parse_devices(text):
            left = self.held.get(name, 0) - milli
            if left < 0:
                raise AssertionError(f"{milli} thousandths of device {name} are given back, never taken")
            if left:
                self.held[name] = left
            else:
                del self.held[name]


def _of_one_kind(devices: list[Device], fitting: list[tuple[int, int, int]], count: int) -> list[int]:
    """The places of the first devices that are equal and enough; of any, where no kind is enough."""
    by_kind: dict[Kind, list[int]] = {}
    for _, _, at in fitting:
        by_kind.setdefault(devices[at].kind, []).append(at)
    for same in by_kind.values():
        if len(same) >= count:
            return same[:count]
    return [at for _, _, at in fitting[:count]]


def devices_text(names: Sequence[str], milli: int) -> str:
    """``0,3`` for whole devices and slices, ``2:500`` for a share."""
    return ",".join(names) if milli == WHOLE_MILLI else f"{names[0]}:{milli}"


def parse_devices(text: str) -> list[tuple[str, int]]:
    """(id, thousandths) of each device in such a text. Raises ValueError for what is none."""
    found: list[tuple[str, int]] = []
    for part in text.split(","):
        name, colon, milli = part.rpartition(":")
        found.append((name, int(milli)) if colon else (part, WHOLE_MILLI))
    return found
