"""The node's GPUs: as they are configured, and what an attempt sees of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from towline.agent.devices import find_gpus
from towline.agent.devices.configured import parse_gpus, parse_labels, parse_taints
from towline.agent.devices.nvml import capability_nodes
from towline.agent.settings import read_settings
from towline.core.rows import GpuDevice
from towline.errors import OperatorError

GIB = 2**30


def test_gpus_as_an_operator_writes_them() -> None:
    assert parse_gpus("A100:40Gi x2, 1g.5gb x2,H100/2g.20gb") == (
        GpuDevice(id="0", model="A100", memory_bytes=40 * GIB),
        GpuDevice(id="1", model="A100", memory_bytes=40 * GIB),
        GpuDevice(id="2", model="A100", memory_bytes=5 * GIB, slice="1g.5gb"),
        GpuDevice(id="3", model="A100", memory_bytes=5 * GIB, slice="1g.5gb"),
        GpuDevice(id="4", model="H100", memory_bytes=20 * GIB, slice="2g.20gb"),
    )
    assert parse_gpus(["NVIDIA A100-SXM4-40GB:40Gi"])[0].model == "NVIDIA A100-SXM4-40GB"
    assert parse_gpus([]) == ()


@pytest.mark.parametrize("text", [":40Gi", "A100:x", "A100;T4", 3, ["A100", 3], "T4 x2000"])
def test_what_is_no_gpu(text: object) -> None:
    with pytest.raises(ValueError):
        parse_gpus(text)


def test_labels_and_taints() -> None:
    assert parse_labels("zone=a, ssd") == (("zone", "a"), ("ssd", ""))
    assert parse_labels({"zone": "a", "ram_gb": 64}) == (("zone", "a"), ("ram_gb", "64"))
    assert parse_taints("gpu=yes,old") == ("gpu=yes", "old")
    for parse, wrong in ((parse_labels, "-=a"), (parse_taints, "=yes"), (parse_labels, 3)):
        with pytest.raises(ValueError):
            parse(wrong)


def test_the_settings_name_the_variable_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(
        'node_gpus = ["T4 x2"]\nnode_taints = ["old"]\n[node_labels]\nzone = "a"\n'
    )
    settings = read_settings(tmp_path, {"TOWLINE_NODE_TAINTS": "gpu=yes"})
    assert settings.gpus is not None
    assert [gpu.model for gpu in settings.gpus] == ["T4", "T4"]
    assert (settings.labels, settings.taints) == ((("zone", "a"),), ("gpu=yes",))
    with pytest.raises(OperatorError, match=r"TOWLINE_NODE_GPUS: node_gpus is .* is no GPU"):
        read_settings(tmp_path, {"TOWLINE_NODE_GPUS": "!"})


def test_variables_and_device_nodes_of_what_was_given(tmp_path: Path) -> None:
    for name in ("gpu0", "gpu1", "shared"):
        (tmp_path / name).touch()
    gpus = find_gpus(
        parse_gpus("T4 x3"), [f"{tmp_path}/gpu{{id}}", f"{tmp_path}/shared", f"{tmp_path}/missing"]
    )
    assert [row.id for row in gpus.rows] == ["0", "1", "2"]
    assert gpus.environment("0,2") == {
        "CUDA_VISIBLE_DEVICES": "0,2",
        "NVIDIA_VISIBLE_DEVICES": "0,2",
        "TOW_GPUS": "0,2",
    }
    assert gpus.environment("1:500")["CUDA_VISIBLE_DEVICES"] == "1"
    assert gpus.environment("1:500")["TOW_GPUS"] == "1:500"
    assert gpus.environment(None) == {
        "CUDA_VISIBLE_DEVICES": "",
        "NVIDIA_VISIBLE_DEVICES": "void",
        "TOW_GPUS": "",
    }
    assert gpus.nodes("0,1") == (f"{tmp_path}/gpu0", f"{tmp_path}/shared", f"{tmp_path}/gpu1")
    assert gpus.nodes("7") == ()


def test_a_slices_capability_files_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "gpu0" / "mig" / "gi3"
    (folder / "ci0").mkdir(parents=True)
    (folder / "access").write_text("DeviceFileMinor: 30\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    (folder / "ci0" / "access").write_text("DeviceFileMinor: 31\nDeviceFileMode: 292\n")
    assert capability_nodes(tmp_path, 0, 3, 0) == (
        "/dev/nvidia-caps/nvidia-cap30",
        "/dev/nvidia-caps/nvidia-cap31",
    )
    assert capability_nodes(tmp_path, 1, 3, 0) == ()
