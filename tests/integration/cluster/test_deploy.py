"""What ``deploy`` has is of this Towline: metrics that there are, units that systemd takes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.cluster.cluster_server import ClusterServer

from towline.model.states import Reason

DEPLOY = Path(__file__).parents[3] / "deploy"
NAME = re.compile(r"\btowline_[a-z_]+")


def alerts() -> list[dict[str, Any]]:
    found = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return json.loads((DEPLOY / "grafana" / "towline.json").read_text())["panels"]


async def test_every_metric_that_is_asked_for_is_there(cluster: ClusterServer) -> None:
    async with cluster.caller(cluster.tokens["viewer"]) as http:
        text = (await http.get("/metrics")).text
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    there = set(kinds)
    for name, kind in kinds.items():
        if kind == "histogram":
            there |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    asked = [rule["expr"] for rule in alerts()]
    asked += [target["expr"] for panel in panels() for target in panel["targets"]]
    names = {name for expression in asked for name in NAME.findall(expression)}
    assert len(names) > 15
    assert names - there == set()


def test_alerts_say_what_they_are_and_name_reasons_that_there_are() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule
        assert rule["annotations"]["summary"] and rule["annotations"]["description"], rule
        for reasons in re.findall(r'reason=~"([^"]+)"', rule["expr"]):
            assert set(reasons.split("|")) <= set(Reason)
    names = [rule["alert"] for rule in alerts()]
    assert len(names) == len(set(names))


def test_panels_have_ids_of_their_own_and_ask_for_something() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert all(panel["targets"] and panel["title"] for panel in panels())


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="there is no docker-compose")
def test_compose_takes_the_file_and_a_shell_its_commands() -> None:
    folder = DEPLOY / "compose"
    done = subprocess.run(
        ["docker-compose", "-f", str(folder / "compose.yaml"), "config"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    services = yaml.safe_load(done.stdout)["services"]
    assert sorted(services) == ["links", "n1", "n2", "server"]
    for service in services.values():
        command = service["command"]
        if command[0] == "sh":
            script = command[-1].replace("$$", "$")
            assert subprocess.run(["sh", "-n"], input=script, text=True, timeout=60).returncode == 0
    # What the image's build copies is there, and is not left out of its context.
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (folder / "Dockerfile").read_text(), re.MULTILINE)
    context = (folder / "Dockerfile.dockerignore").read_text().splitlines()
    for name in " ".join(copied).split():
        assert (DEPLOY.parent / name).exists()
        assert f"!{name}" in context


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.parametrize("unit", ["towline-server.service", "towline-agent.service"])
def test_systemd_takes_the_units(unit: str, tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / unit).read_text()
    tow = Path(sys.executable).parent / "tow"
    (command,) = re.findall(r"^ExecStart=(\S+)", text, re.MULTILINE)
    (tmp_path / unit).write_text(text.replace(command, str(tow)))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / unit)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
