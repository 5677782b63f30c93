"""A Docker engine and Podman's service of the tests' own, each started once a session when first asked
for: their data, sockets and pids lie in a folder that goes with them. Nothing of the machine's is used.

    found = engine("docker")        # or "podman"
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import signal
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests import guard

from towline.runtime.docker.probe import Found, probe_docker

PATIENCE_S = 60.0
_LOOK_S = 0.05
_END_S = 10.0


@cache
def engine(kind: str) -> Found:
    """Start it if it is not there. Raises AssertionError with its own words where it does not come up."""
    folder = Path(tempfile.mkdtemp(prefix=f"towline-{kind}-"))
    guard.watch(folder)
    argv = {"docker": _docker, "podman": _podman}[kind](folder)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    atexit.register(_end, process, folder)
    url = f"unix://{folder}/engine.sock"
    for _ in range(int(PATIENCE_S / _LOOK_S)):
        if (folder / "engine.sock").exists() and (found := probe_docker({"DOCKER_HOST": url})).url:
            return found
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        _pause(process)
    raise AssertionError((folder / "log").read_text()[-2000:])


def _pause(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_LOOK_S)
    except subprocess.TimeoutExpired:
        return


def _docker(folder: Path) -> list[str]:
    return [
        "dockerd", "--host", f"unix://{folder}/engine.sock", "--pidfile", f"{folder}/pid",
        "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec",
        "--iptables=false", "--ip6tables=false", "--bridge=none",
    ]  # fmt: skip


def _podman(folder: Path) -> list[str]:
    """By runc, since crun as Podman calls it does not start on a hybrid machine."""
    return [
        "podman", "--root", f"{folder}/data", "--runroot", f"{folder}/exec", "--cgroup-manager", "cgroupfs",
        "--events-backend", "file", "--runtime", shutil.which("runc") or "runc",
        "system", "service", "--time", "0", f"unix://{folder}/engine.sock",
    ]  # fmt: skip


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Asked first; its containers and what it leaves are ended with its folder."""
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    guard.end(folder)
    process.wait()
