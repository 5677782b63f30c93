"""NVIDIA's GPUs through its management library, where ``nvidia-ml-py`` and a driver are there.

A device in MIG mode is not offered itself: its slices are, each with the capability files that the
kernel wants to see opened (https://docs.nvidia.com/datacenter/tesla/mig-user-guide, "Device Nodes").
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from towline.agent.devices.local import LocalGpu
from towline.core.rows import GpuDevice

CAPABILITIES = Path("/proc/driver/nvidia/capabilities")
_MINOR = re.compile(r"DeviceFileMinor:\s*([0-9]+)")
_PROFILE = re.compile(r"MIG\s+([0-9]+g\.[0-9]+gb(?:\+[a-z.]+)?)")


def nvml_gpus(shared_nodes: Sequence[str], library: Any = None) -> list[LocalGpu]:
    """The GPUs of this machine; none where the library or the driver is missing. Never raises.

    ``library`` is the module ``pynvml``, imported where it is None.
    """
    if library is None:
        try:
            library = importlib.import_module("pynvml")
        except ImportError:
            return []
    log = structlog.get_logger("agent")
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        log.info("no NVIDIA driver answers", reason=str(error))
        return []
    try:
        count = library.nvmlDeviceGetCount()
        return [gpu for at in range(count) for gpu in _of_device(library, at, shared_nodes)]
    except library.NVMLError as error:
        log.warning("the GPUs cannot be listed: the node offers none", reason=str(error))
        return []
    finally:
        library.nvmlShutdown()


def _of_device(library: Any, at: int, shared_nodes: Sequence[str]) -> Iterator[LocalGpu]:
    handle = library.nvmlDeviceGetHandleByIndex(at)
    model = _text(library.nvmlDeviceGetName(handle))
    minor = library.nvmlDeviceGetMinorNumber(handle)
    nodes = (f"/dev/nvidia{minor}", *shared_nodes)
    if _in_mig_mode(library, handle):
        for slot in range(library.nvmlDeviceGetMaxMigDeviceCount(handle)):
            yield from _slice(library, handle, at, slot, model, minor, nodes)
        return
    device = GpuDevice(id=str(at), model=model, memory_bytes=library.nvmlDeviceGetMemoryInfo(handle).total)
    yield LocalGpu(device=device, visible=_text(library.nvmlDeviceGetUUID(handle)), nodes=nodes)


def _in_mig_mode(library: Any, handle: Any) -> bool:
    try:
        current, _ = library.nvmlDeviceGetMigMode(handle)
    except library.NVMLError:
        return False  # a model without MIG
    return current == library.NVML_DEVICE_MIG_ENABLE


def _slice(
    library: Any, parent: Any, at: int, slot: int, model: str, minor: int, nodes: tuple[str, ...]
) -> Iterator[LocalGpu]:
    try:
        handle = library.nvmlDeviceGetMigDeviceHandleByIndex(parent, slot)
    except library.NVMLError:
        return  # an empty slot
    profile = _PROFILE.search(_text(library.nvmlDeviceGetName(handle)))
    gi, ci = library.nvmlDeviceGetGpuInstanceId(handle), library.nvmlDeviceGetComputeInstanceId(handle)
    device = GpuDevice(
        id=f"{at}.{slot}",
        model=model,
        memory_bytes=library.nvmlDeviceGetMemoryInfo(handle).total,
        slice=profile[1] if profile else "unknown",
    )
    caps = capability_nodes(CAPABILITIES, minor, gi, ci)
    yield LocalGpu(device=device, visible=_text(library.nvmlDeviceGetUUID(handle)), nodes=(*nodes, *caps))


def capability_nodes(root: Path, minor: int, gi: int, ci: int) -> tuple[str, ...]:
    """The capability files of a slice: of its GPU instance, and of its compute instance."""
    folder = root / f"gpu{minor}" / "mig" / f"gi{gi}"
    found: list[str] = []
    for file in (folder / "access", folder / f"ci{ci}" / "access"):
        try:
            match = _MINOR.search(file.read_text())
        except OSError:
            continue
        if match is not None:
            found.append(f"/dev/nvidia-caps/nvidia-cap{match[1]}")
    return tuple(found)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
