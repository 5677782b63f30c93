"""Which GPUs a node has: those of its settings, else those that NVIDIA's library finds."""

from __future__ import annotations

from collections.abc import Sequence

from towline.agent.devices.local import LocalGpu, LocalGpus
from towline.agent.devices.nvml import nvml_gpus
from towline.core.rows import GpuDevice

SHARED_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
"""What every user of a NVIDIA device needs beside the device's own node."""
DEVICE_NODES = ("/dev/nvidia{id}", *SHARED_NODES)


def find_gpus(configured: Sequence[GpuDevice] | None, patterns: Sequence[str]) -> LocalGpus:
    """``configured`` (not None) stands in the place of what the machine has; ``patterns`` are the paths of
    a configured device's nodes, in which ``{id}`` stands for its id. Never raises."""
    if configured is None:
        return LocalGpus(nvml_gpus(SHARED_NODES))
    return LocalGpus(
        LocalGpu(
            device=device,
            visible=device.id,
            nodes=tuple(pattern.replace("{id}", device.id) for pattern in patterns or DEVICE_NODES),
        )
        for device in configured
    )
