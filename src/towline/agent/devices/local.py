"""What an attempt sees of the GPUs that it was given: variables, and device nodes in a container."""

from __future__ import annotations

import os
from collections.abc import Iterable

from msgspec import Struct

from towline.core.placement.ledger import parse_devices
from towline.core.rows import GpuDevice

NONE_VISIBLE = ""
"""What CUDA takes for: no device."""
VOID = "void"
"""The same to NVIDIA's container runtime."""


class LocalGpu(Struct, frozen=True, kw_only=True):
    """A device, or a MIG slice of one. ``visible`` is its name to CUDA (a UUID, or its place);
    ``nodes`` are the paths of its own device nodes, and of those that all of its kind need."""

    device: GpuDevice
    visible: str
    nodes: tuple[str, ...] = ()


class LocalGpus:
    """All GPUs of this node, by id."""

    def __init__(self, gpus: Iterable[LocalGpu]) -> None:
        self._gpus = {gpu.device.id: gpu for gpu in gpus}
        self.rows: tuple[GpuDevice, ...] = tuple(gpu.device for gpu in self._gpus.values())
        """What the server is told of them."""

    def _given(self, devices: str) -> list[LocalGpu]:
        """Those of a text such as ``0,3`` or ``2:500``; one that is not here any more is left out, and
        the attempt finds out by itself."""
        names = [name for name, _ in parse_devices(devices)]
        return [self._gpus[name] for name in names if name in self._gpus]

    def environment(self, devices: str | None) -> dict[str, str]:
        """CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES name the devices, TOW_GPUS says how much of them
        (``2:500`` is half of device 2)."""
        visible = [] if devices is None else [gpu.visible for gpu in self._given(devices)]
        return {
            "CUDA_VISIBLE_DEVICES": ",".join(visible) or NONE_VISIBLE,
            "NVIDIA_VISIBLE_DEVICES": ",".join(visible) or VOID,
            "TOW_GPUS": devices or "",
        }

    def nodes(self, devices: str) -> tuple[str, ...]:
        """The device nodes of a text's devices, those that are on this machine, each once."""
        found = [node for gpu in self._given(devices) for node in gpu.nodes]
        return tuple(node for node in dict.fromkeys(found) if os.path.exists(node))
