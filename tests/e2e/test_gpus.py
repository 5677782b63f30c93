"""GPUs from the job file to the device nodes in a container, with devices that only the settings have."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.home import Home, Maker, until

pytestmark = [pytest.mark.own_home, pytest.mark.one_machine("counts the devices of one node")]

NULL = (1, 3)  # as /dev/null, so that anybody may write to it
ZERO = (1, 5)


@pytest.fixture
def gpus(home: Home, tmp_path: Path) -> Iterator[Path]:
    """A node of two A100, a T4 and two slices; device 0 gives zeros, the others swallow what is written."""
    folder = Path("/dev") / f"tow-test-{os.getpid()}"
    folder.mkdir()
    for at in range(5):
        path = folder / f"gpu{at}"
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*(NULL if at else ZERO)))
        path.chmod(0o666)
    home.env |= {
        "TOWLINE_NODE_GPUS": "A100:40Gi x2, T4:16Gi, A100/1g.5gb x2",
        "TOWLINE_NODE_GPU_NODES": f"{folder}/gpu{{id}}",
        "TOWLINE_NODE_LABELS": "zone=a,ram_gb=64",
        "TOWLINE_NODE_TAINTS": "gpu=yes",
    }
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def run(home: Home, task: dict[str, Any]) -> list[str]:
    """The lines that a job of one task wrote."""
    job = home.submit({"main": {**task, "tolerate": ["gpu"]}})
    home.tow("wait", job)
    return home.tow("logs", f"{job}/main").stdout.splitlines()


SHOW = 'echo "$CUDA_VISIBLE_DEVICES|$NVIDIA_VISIBLE_DEVICES|$TOW_GPUS"'


def test_an_attempt_sees_the_gpus_that_it_was_given(home: Home, gpus: Path, task: Maker) -> None:
    assert run(home, task(SHOW, resources={"gpu": 2})) == ["0,1|0,1|0,1"]
    assert run(home, task(SHOW, resources={"gpu": 0.5})) == ["2|2|2:500"], "the weakest that will do"
    assert run(home, task(SHOW, resources={"gpu": {"slice": "1g.5gb"}})) == ["3|3|3"]
    assert run(home, task(SHOW)) == ["|void|"], "what asks for none sees none"
    wanted = {"count": 1, "memory": "20Gi"}
    assert run(home, task(SHOW, where={"gpu.model": "A100"}, resources={"gpu": wanted})) == ["0|0|0"]


def test_tow_nodes_shows_what_is_free_and_why_says_what_is_not(home: Home, gpus: Path, script: Maker) -> None:
    held = home.submit({"main": {**script("sleep 60", resources={"gpu": 0.25}), "tolerate": ["gpu"]}})
    until(lambda: home.json("job", held)["counts"].get("active"), "it runs")
    table = home.tow("nodes").stdout
    assert "2/2 A100, 0.75/1 T4, 2/2 1g.5gb" in table
    assert "zone=a ram_gb=64" in table
    assert "gpu=yes" in table
    waiting = home.submit({"main": {**script("true", resources={"gpu": 3}), "tolerate": ["gpu"]}})
    assert "3 GPUs asked, 2 free" in home.tow("why", waiting).stdout
    never = home.submit({"main": script("true", where={"zone": "b"})})
    assert "label zone=b wanted, is a" in home.tow("why", never).stdout
    kept_away = home.submit({"main": script("true")})
    assert "taint gpu=yes not tolerated" in home.tow("why", kept_away).stdout
    home.tow("cancel", held)
    home.tow("wait", waiting)


@pytest.mark.containers
def test_a_container_has_its_own_devices_and_no_others(home: Home, gpus: Path, busybox_image: str) -> None:
    task = Maker(busybox_image)
    look = f"ls {gpus}; head -c 3 {gpus}/gpu0 | od -An -tx1; echo x > {gpus}/gpu0 && echo written"
    assert run(home, task(look, resources={"gpu": {"count": 1, "model": "A100"}})) == [
        "gpu0",
        " 00 00 00",
        "written",
    ]
    assert run(home, task(f"ls {gpus} 2>/dev/null || echo none", resources={})) == ["none"]
    made = f"mknod /dev/mine c 1 5 2>/dev/null || echo refused; ls {gpus}"
    assert run(home, task(made, resources={"gpu": {"model": "T4"}})) == ["refused", "gpu2"]
