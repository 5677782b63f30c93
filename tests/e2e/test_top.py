"""What runs shows what it uses."""

from __future__ import annotations

import os
import pty
import signal
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tests.e2e.home import Home, Maker, until
from tests.e2e.test_terminal import read_all

BUSY = 'head -c 5000 /dev/zero; [ "$TOW_INDEX" = 0 ] && while :; do :; done; sleep 600'


@contextmanager
def running(home: Home, task: Maker) -> Generator[str]:
    """A job of three elements that run, of which two have printed and the first keeps a CPU busy. They are
    ended, since containers would outlive their home."""
    job = home.submit({"t": task(BUSY, array=2), "u": task("sleep 600")}, name="busy")
    try:
        until(lambda: len(home.json("top", "-d", "0.1")["elements"]) == 3, "all to run")
        yield job
    finally:
        home.tow("cancel", job, "--kill")
        home.tow("wait", job, status=1)


def answered(shown: Any) -> Any:
    """None where the node was too busy to answer one of the looks."""
    return shown if all(node["cpu"] is not None for node in shown["nodes"]) else None


def test_what_elements_use(home: Home, task: Maker) -> None:
    with running(home, task) as job:
        shown = until(lambda: answered(home.json("top", job, "--interval", "0.3")), "both looks")
    first, *others = shown["elements"]
    assert first["name"] == "busy/t.0"
    assert sorted(element["name"] for element in others) == ["busy/t.1", "busy/u"]
    assert first["cpu"] > max(element["cpu"] for element in others)
    assert (first["job"], first["attempt"], first["cpu_limit"]) == (job, 1, 0.1)
    assert first["memory_limit_bytes"] == 32 * 1024**2
    for element in shown["elements"]:
        assert element["memory_bytes"] > 0
        assert element["pids"] >= 1
        assert element["run_seconds"] > 0
        assert task.image is None or element["peak_memory_bytes"] >= element["memory_bytes"] // 2
    assert {element["output_bytes"] for element in shown["elements"]} == {0, 5000}
    assert sum(node["elements"] for node in shown["nodes"]) == 3
    assert max(node["cpu"] for node in shown["nodes"]) > 0
    assert {node["cpus"] for node in shown["nodes"]} == {os.cpu_count()}


def test_a_table_of_what_was_asked_for(home: Home, script: Maker) -> None:
    with running(home, script):
        text = home.tow("top", "busy/t", "--once", "-d", "0.1", "--sort", "memory").stdout
        (one,) = home.json("top", "busy/t.1", "-d", "0.1")["elements"]
        for wrong in (["busy/v"], ["busy/t.9"], ["--sort", "size"], ["-d", "nan"]):
            refused = home.tow("top", *wrong, status=2)
            assert refused.stdout == ""
            assert refused.stderr.startswith("error: ")
    lines = text.splitlines()
    assert lines[0].startswith("2 running: ")
    head = lines.index("")
    assert lines[1:head] and all("cores busy, load " in line for line in lines[1:head])
    assert lines[head + 1].split()[:2] == ["ELEMENT", "CPU"]
    assert {line.split()[0] for line in lines[head + 2 :]} == {"busy/t.0", "busy/t.1"}
    assert one["index"] == 1


def test_on_a_terminal_it_goes_on_until_ctrl_c(home: Home, script: Maker) -> None:
    home.run({"a": script("true")})
    controller, terminal = pty.openpty()
    shown = home.start("top", "-d", "0.1", stdout=terminal, stderr=terminal)
    os.close(terminal)
    text = b""
    while text.count(b"0 running") < 3:
        text += os.read(controller, 65536)
    shown.send_signal(signal.SIGINT)
    read_all(controller)
    os.close(controller)
    assert shown.wait() == 0
