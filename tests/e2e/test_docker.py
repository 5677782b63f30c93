"""``runtime: docker`` at the terminal: what a container of an engine gets is what one of oci gets."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.containers import busybox_image
from tests.e2e.home import Home, Maker, until
from tests.engines import engine
from tests.registry import PASSWORD, USER, Registry, closed_registry

__all__ = ["busybox_image", "closed_registry"]

pytestmark = [
    pytest.mark.containers,
    pytest.mark.own_home,
    pytest.mark.one_machine("its engine is this machine's, and it looks into the folder of its only node"),
]

VALUE = "s3cret-Qx7-docker"
USE = """
wc -c < /run/secrets/TOKEN; id -u; grep -c '^Seccomp:.2' /proc/self/status
touch /run/secrets/x 2>/dev/null || echo read-only
mount | grep -c '^tmpfs on /run/secrets .*ro,'
head -c 1 $DEVICE | od -An -tx1
echo mine > $TOW_OUT/made; [ $(id -u) = 0 ] || exit 7
"""


@pytest.fixture
def docker(home: Home) -> str:
    url = engine("docker").url
    assert url is not None
    home.env["DOCKER_HOST"] = url
    return url.removeprefix("unix://")


@pytest.fixture
def device(home: Home) -> Iterator[str]:
    """A GPU, by its device node: it is /dev/zero's."""
    path = Path("/dev/towline-test-docker-gpu0")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    path.chmod(0o666)
    home.env |= {"TOWLINE_NODE_GPUS": "T4:16Gi", "TOWLINE_NODE_GPU_NODES": str(path)}
    yield str(path)
    path.unlink()


def task(image: str, script: str, **fields: Any) -> dict[str, Any]:
    return Maker(image)(script, runtime="docker", **fields)


def test_secrets_devices_and_artifacts_are_as_in_oci(
    home: Home, docker: str, device: str, busybox_image: str
) -> None:
    home.tow("secret", "set", "my-token", input=VALUE)
    given = {"secrets": {"TOKEN": "my-token"}, "env": {"DEVICE": device}, "resources": {"gpu": 1}}
    tasks = {
        "root": task(busybox_image, USE, **given),
        "user": task(busybox_image, USE, user="1000:1000", **given),
        "full": task(
            busybox_image, "head -c 40000000 /dev/zero > /big; sleep 600", resources={"disk": "8Mi"}
        ),
    }
    job = home.submit(tasks)
    home.tow("wait", job, status=1)
    said = [home.tow("logs", f"{job}/{name}").stdout.split() for name in ("root", "user")]
    rest = ["read-only", "1", "00"]
    assert said == [[str(len(VALUE)), "0", "1", *rest], [str(len(VALUE)), "1000", "1", *rest]]
    elements = {name: home.json("tasks", f"{job}/{name}.0") for name in tasks}
    assert (elements["user"]["exit_code"], elements["full"]["reason"]) == (7, "disk_full")
    assert "8 MiB" in elements["full"]["message"]
    made = list((home.path / "node" / "artifacts").rglob("made"))
    assert [(path.stat().st_uid, path.read_text()) for path in made] == [(os.geteuid(), "mine\n")] * 2
    until(lambda: not list(Path("/run").glob(f"towline-secrets.*/*/{job}*")), "the secrets to be removed")
    home.tow("stop")
    for folder in (home.path, Path(docker).parent / "data"):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert VALUE.encode() not in path.read_bytes(), path


def test_a_login_from_the_vault_lets_the_engine_pull(
    home: Home, docker: str, closed_registry: Registry, busybox_image: str
) -> None:
    closed_registry.push(busybox_image, "engine:1")
    host = f"127.0.0.1:{closed_registry.port}"
    tasks = {"t": task(f"{host}/engine:1", "echo in")}
    refused = home.submit(tasks)
    home.tow("wait", refused, status=1)
    assert home.json("tasks", f"{refused}/t.0")["reason"] == "image_auth"
    home.tow("registry", "login", host, "-u", USER, input=PASSWORD + "\n")
    job = home.submit(tasks)
    home.tow("wait", job)
    assert home.tow("logs", f"{job}/t").stdout == "in\n"
    home.tow("stop")
    for path in home.path.rglob("*"):
        if path.is_file():
            assert PASSWORD.encode() not in path.read_bytes(), path


def test_the_doctor_says_which_engine_there_is(home: Home, docker: str) -> None:
    report = home.json("doctor", status=None)["engines"]["docker"]
    assert report["problem"] is None
    assert report["version"].startswith("Docker ")
    assert report["url"] == f"unix://{docker}"
    assert {"seccomp", "memory", "network"} <= set(report["protects"])
    assert "userns-remap" in report["lacks"]["userns"]
    shown = home.tow("doctor", status=None).stdout
    assert f"{report['version']} at unix://{docker}" in shown
