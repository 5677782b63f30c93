"""What can run containers on this machine, as ``tow doctor`` says it, and what to do where nothing can."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PACKAGES = {
    "debian": "sudo apt-get install podman",
    "ubuntu": "sudo apt-get install podman",
    "fedora": "sudo dnf install podman",
    "rhel": "sudo dnf install podman",
    "arch": "sudo pacman -S podman",
    "suse": "sudo zypper install podman",
    "opensuse": "sudo zypper install podman",
    "alpine": "sudo apk add podman",
}
"""By the ID and ID_LIKE of os-release."""


def engines(home: Path) -> dict[str, dict[str, Any]]:
    """crun and runc, found by starting a container with each, unless that was done before, and the Engine
    of Docker or Podman: ``protects`` what they give containers here, ``lacks`` reasons and remedies."""
    from towline.agent.settings import read_settings
    from towline.errors import OperatorError
    from towline.runtime.docker.probe import probe_docker
    from towline.runtime.oci.probe import probe_engines

    try:
        settings = read_settings(home, os.environ)
    except OperatorError as error:
        return {"settings": {"problem": str(error), "protects": [], "lacks": {}}}
    found = probe_docker(os.environ)
    return {
        **{
            name: {"problem": probe.problem, "protects": list(probe.protects), "lacks": probe.lacks}
            for name, probe in probe_engines(settings.node_dir, settings.containers).items()
        },
        "docker": {
            "problem": found.probe.problem,
            "protects": list(found.probe.protects),
            "lacks": found.probe.lacks,
            "kind": found.kind,
            "version": found.probe.version,
            "url": found.url,
        },
    }


def lines_of(name: str, engine: dict[str, Any]) -> list[str]:
    """What is printed of one of them."""
    if engine["problem"] is not None:
        return [engine["problem"]] if name == "docker" else []
    lines = [f"{engine['version']} at {engine['url']}"] if engine.get("url") else []
    lines.append(f"protects by {', '.join(engine['protects'])}")
    return lines + [f"has no {what}: {why}" for what, why in engine["lacks"].items()]


def problems_of(runtimes: Mapping[str, str | None]) -> list[str]:
    """Of a node's runtimes. Without an Engine nothing is amiss, as long as it runs containers by itself."""
    if runtimes.get("oci") is None:
        broken = {name: why for name, why in runtimes.items() if name != "docker"}
    else:
        broken = dict(runtimes)
    problems = [f"Runtime {name}: {why}" for name, why in broken.items() if why is not None]
    if runtimes.get("oci") is not None and runtimes.get("docker") is not None:
        problems.append(
            "Nothing can run containers here: do what is said of oci, or, as is usual on a laptop, "
            f"{_advice()}; then tow stop, tow doctor. Until then, tasks with 'runtime: process' run."
        )
    return problems


def _advice() -> str:
    if sys.platform == "darwin":
        return "start Docker Desktop or 'podman machine'"
    install = next((_PACKAGES[name] for name in _systems() if name in _PACKAGES), "install podman")
    return f"have an engine: {install}, then systemctl --user enable --now podman.socket"


def _systems() -> list[str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return []
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    return [word.strip('"') for name in ("ID", "ID_LIKE") for word in said.get(name, "").split()]
