"""Whether an Engine answers here, what it is, and what it can protect: asked by plain HTTP, so that
``tow doctor`` needs no client library for it."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from msgspec import structs

from towline.runtime.cgroups import find_cgroups
from towline.runtime.docker.places import closed_socket, find_engine, socket_path
from towline.runtime.docker.spec import Traits
from towline.runtime.port import Probe
from towline.runtime.seccomp import native_machine

_TIMEOUT_S = 15
"""Podman asks the package manager for the versions of its parts, which takes seconds on a busy machine."""
_MOST = 32768
_LACKS = {
    "userns": 'its users are those of the machine: give Docker\'s daemon "userns-remap", or use an engine '
    "that is rootless",
    "seccomp": "it has no seccomp, or its default profile is unconfined: change its configuration",
    "memory": "its kernel gives no memory cgroup, or only version 1 to a rootless engine: boot it with "
    "version 2",
    "cpu": "its kernel gives no CPU quotas, or only version 1 to a rootless engine: boot it with version 2",
    "pids": "its kernel gives no pids cgroup, or only version 1 to a rootless engine: boot it with version 2",
    "disk": "its storage driver does not limit containers: put its data on zfs, or on XFS mounted "
    "with pquota",
}
_ULIMITS = (("nofile", "Max open files"), ("nproc", "Max processes"))


class Found(NamedTuple):
    """``url`` and ``traits`` of the Engine that answers, ``kind`` Docker or Podman; None where none does."""

    probe: Probe
    url: str | None
    traits: Traits
    kind: str | None = None


def probe_docker(environ: Mapping[str, str]) -> Found:
    """Blocks for some milliseconds, with Podman for up to some seconds."""
    url = find_engine(environ)
    if url is None:
        closed = closed_socket(environ)
        if closed is not None:
            return _none(
                f"the socket {closed.path} is there, but belongs to {closed.owner}: have yourself added to "
                f"the group {closed.group} (sudo usermod -aG {closed.group} $USER) and log in again, or "
                f"start an engine of your own (systemctl --user start podman.socket)"
            )
        return _none(
            "no socket of Docker or Podman is here: start one (systemctl --user start podman.socket), or set "
            "DOCKER_HOST"
        )
    if importlib.util.find_spec("aiodocker") is None:
        return _none(f"{url} is there, but aiodocker is not installed: pip install 'towline[docker]'")
    try:
        version, info = _ask(url, "/version"), _ask(url, "/info")
    except PermissionError:
        return _none(
            f"the engine at {url} may not be used by this user: join the group of its socket "
            f"(for Docker: sudo usermod -aG docker $USER) and log in again, or correct DOCKER_HOST"
        )
    except (OSError, ValueError, http.client.HTTPException) as error:
        return _none(f"the engine at {url} does not answer ({error}): start it, or correct DOCKER_HOST")
    podman = any("Podman" in part.get("Name", "") for part in version.get("Components") or [])
    name = "Podman" if podman else "Docker"
    if info.get("OSType", "linux") != "linux":
        return _none(f"the engine at {url} runs {info['OSType']} containers: switch it to Linux containers")
    api = f"v{version['ApiVersion']}" if version.get("ApiVersion") else "auto"
    traits = structs.replace(traits_of(url, info, podman), api=api)
    given = protects(info, traits.disk)
    probe = Probe(
        name="docker", version=f"{name} {version.get('Version', '')}", problem=None,
        protects=given, lacks={what: why for what, why in _LACKS.items() if what not in given},
    )  # fmt: skip
    return Found(probe, url, traits, name)


def protects(info: dict[str, Any], disk: bool = False) -> tuple[str, ...]:
    """From ``GET /info``. ``disk``: its storage driver limits what a container writes."""
    options = " ".join(info.get("SecurityOptions") or [])
    rootless = "name=rootless" in options or bool(info.get("Rootless"))  # Docker's words, and Podman's
    limits = not (rootless and info.get("CgroupVersion") == "1")  # Podman takes them then, and ignores them
    given = {
        "userns": "name=userns" in options or rootless,
        "seccomp": "name=seccomp" in options and "profile=unconfined" not in options,
        "memory": limits and bool(info.get("MemoryLimit")),
        "cpu": limits and bool(info.get("CpuCfsQuota")),
        "pids": limits and bool(info.get("PidsLimit")),
        "disk": disk,
        "network": True,
        "rootfs": True,
    }
    return tuple(name for name, yes in given.items() if yes)


def _none(problem: str) -> Found:
    return Found(Probe(name="docker", version=None, problem=problem), None, Traits())


def traits_of(url: str, info: dict[str, Any], podman: bool) -> Traits:
    """From ``GET /info`` of the Engine there, but for its API's version."""
    local = _is_of_this_machine(url, info)
    ours = local and os.geteuid() == 0 and info.get("CgroupDriver") == "cgroupfs"
    common = Traits(
        podman=podman,
        local=local,
        seccomp=_seccomp(info, podman, local),
        disk=local and _limits_disk(info),
        nvidia="nvidia" in (info.get("Runtimes") or {}),
        cgroup_parent=ours and _counts(),
    )
    if not podman:
        return structs.replace(common, first_ids=_first_ids(info))
    # Podman asks for 1048576 of both by default, which fails where its service may not raise its own.
    path = socket_path(url)
    given = {} if path is None else _hard_limits(path)
    return structs.replace(
        common,
        ulimits=tuple((name, min(_MOST, given.get(line, _MOST))) for name, line in _ULIMITS),
    )


def _seccomp(info: dict[str, Any], podman: bool, local: bool) -> Literal["inline", "file"] | None:
    """A profile is for an architecture: that of the Engine's kernel is ours where it is this machine's."""
    if "seccomp" not in protects(info) or native_machine() is None or not local:
        return None
    return "file" if podman else "inline"


def _first_ids(info: dict[str, Any]) -> tuple[int, int]:
    """With a userns-remap, Docker's data lies in a folder that is named after them."""
    if "name=userns" not in (info.get("SecurityOptions") or []):
        return 0, 0
    uid, _, gid = Path(info.get("DockerRootDir") or "").name.partition(".")
    return (int(uid), int(gid)) if uid.isdecimal() and gid.isdecimal() else (0, 0)


def _limits_disk(info: dict[str, Any]) -> bool:
    """Of the storage drivers, zfs always can, and overlay on XFS with project quotas. That of btrfs takes a
    limit too, but on kernels that count by other rules than Docker expects, nothing keeps it."""
    driver = info.get("Driver")
    if driver == "zfs":
        return True
    return driver in ("overlay2", "overlay") and _has_project_quotas(info.get("DockerRootDir") or "")


def _has_project_quotas(folder: str) -> bool:
    best, found = "", False
    with suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            target = before.split()[4]
            within = folder == target or folder.startswith(f"{target.rstrip('/')}/")
            if within and len(target) >= len(best):
                best = target
                kind, _, options = after.split(" ", 2)
                found = kind == "xfs" and not {"prjquota", "pquota"}.isdisjoint(options.split(","))
    return found


def _hard_limits(path: str) -> dict[str, int]:
    """Those of the process behind the socket, as far as they can be seen from here and are limits."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_TIMEOUT_S)
        try:
            sock.connect(path)
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            text = Path(f"/proc/{int.from_bytes(credentials[:4], 'little')}/limits").read_text()
        except OSError:
            return {}
    lines = ((line[:26].strip(), line[26:].split()) for line in text.splitlines())
    return {name: int(words[1]) for name, words in lines if len(words) > 1 and words[1].isdecimal()}


def _is_of_this_machine(url: str, info: dict[str, Any]) -> bool:
    """Not where the Engine is in a virtual machine (Docker Desktop), whose kernel is another one."""
    return socket_path(url) is not None and info.get("KernelVersion") == os.uname().release


def _counts() -> bool:
    try:
        cgroups = find_cgroups()
        cgroups.make_parent()
    except OSError:
        return False
    return not cgroups.missing()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


def _ask(url: str, path: str) -> dict[str, Any]:
    unix = socket_path(url)
    if unix is not None:
        connection: http.client.HTTPConnection = _UnixConnection(unix)
    elif url.startswith(("tcp://", "http://")):
        connection = http.client.HTTPConnection(url.partition("//")[2].rstrip("/"), timeout=_TIMEOUT_S)
    else:
        raise ValueError("only unix:// and tcp:// addresses can be used")
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise ValueError(f"it answers {answer.status}")
        return json.loads(body)
    finally:
        connection.close()
