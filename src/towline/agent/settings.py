"""The agent's configuration: one Struct, from defaults, ``HOME/agent.toml``, TOWLINE_* and flags.

Later sources win. In TOML and in the environment quantities are written as in a job file:
``node_memory = "16Gi"``, ``TOWLINE_NODE_CPU=4``.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from towline.agent.devices.configured import parse_gpus, parse_labels, parse_taints
from towline.core.rows import GpuDevice
from towline.errors import WrongSetting
from towline.images.settings import ImageSettings
from towline.model import units
from towline.runtime.oci.engine import ENGINES
from towline.runtime.policy import Policy, Wanted, parse_capabilities, parse_flag, parse_owner, parse_words


class Settings(Struct, frozen=True, kw_only=True):
    """What an operator may tune. ``local``: the server is the one of this home, on this machine."""

    home: Path
    name: str
    local: bool = True
    cpu_milli: int | None = None
    """What the node offers; None: what the machine has."""
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    gpus: tuple[GpuDevice, ...] | None = None
    """In place of those of the machine."""
    gpu_nodes: tuple[str, ...] = ()
    """Device nodes of a configured GPU, where they are not NVIDIA's; ``{id}`` stands for its id."""
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[str, ...] = ()
    """Keep away every task that does not tolerate them."""
    servers: tuple[str, ...] = ()
    """Further servers of the cluster, ``https://HOST:PORT``, besides those that it is told of."""
    allowed_mounts: tuple[str, ...] = ()
    """Folders below which jobs may mount, besides a job's own base_dir in local mode."""
    oci_runtime: str | None = None
    """crun or runc; None: whichever works, crun first."""
    oci_userns: bool = True
    files_user: tuple[int, int] | None = None
    """uid and gid of the submitting user, whose files mounts and artifacts are; None: who runs the agent."""
    policy: Policy = Policy()
    """What tasks may ask for beyond no rights."""
    images: ImageSettings = ImageSettings()
    artifacts_cache_bytes: int | None = None
    """What copies of artifacts that the server has too may take; None: a tenth of the disk."""
    idle_s: float = 60.0
    """A local agent ends after so long without a server."""

    @property
    def node_dir(self) -> Path:
        return self.home / "node"

    @property
    def containers(self) -> Wanted:
        owner = self.files_user or (os.geteuid(), os.getegid())
        return Wanted(engine=self.oci_runtime, userns=self.oci_userns, owner=owner, policy=self.policy)

    @property
    def membership_dir(self) -> Path:
        """There once this machine is a node of a cluster."""
        return self.node_dir / MEMBERSHIP

    @property
    def server_socket(self) -> Path:
        return self.home / "tow.sock"


def read_settings(home: Path, environ: Mapping[str, str]) -> Settings:
    """Raises WrongSetting with the file or variable that is wrong, and what to write instead."""
    values: dict[str, object] = {"name": socket.gethostname() or "local"}
    file = home / "agent.toml"
    for name, value in _from_toml(file).items():
        values |= _parse(name, value, str(file))
    for name in _PARSERS:
        variable = f"TOWLINE_{name.upper()}"
        if environ.get(variable):
            values |= _parse(name, environ[variable], variable)
    images, policy = (_taken(values, prefix) for prefix in (_IMAGES, _POLICY))
    return Settings(
        home=home,
        local=not (home / "node" / MEMBERSHIP).is_dir(),
        images=ImageSettings(**images),  # type: ignore[arg-type]
        policy=Policy(**policy),  # type: ignore[arg-type]
        **values,  # type: ignore[arg-type]
    )


def _taken(values: dict[str, object], prefix: str) -> dict[str, object]:
    """Those whose names begin so, without that, taken out."""
    names = [name for name in values if name.startswith(prefix)]
    return {name.removeprefix(prefix): values.pop(name) for name in names}


def _from_toml(file: Path) -> dict[str, object]:
    """Settings by name; those of the table ``[images]`` begin with images_."""
    try:
        found = tomllib.loads(file.read_text())
        images = found.pop("images", {})
        if not isinstance(images, dict):
            raise ValueError("images is no table: write [images]")
        return found | {f"{_IMAGES}{name}": value for name, value in images.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WrongSetting(f"{file} cannot be read: {error}") from None


def _parse(name: str, value: object, source: str) -> dict[str, object]:
    if name not in _PARSERS:
        raise WrongSetting(f"{source}: there is no setting {name!r}; known are {', '.join(_PARSERS)}")
    field, parse = _PARSERS[name]
    try:
        return {field: parse(value)}
    except ValueError as error:
        raise WrongSetting(f"{source}: {name} is {value!r}, but {error}") from None


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= 253:
        raise ValueError("a node's name is 1 to 253 printable characters")
    return value


def _folders(value: object) -> tuple[str, ...]:
    """A list, or as in PATH a text with colons between."""
    folders = value.split(":") if isinstance(value, str) else value
    if not isinstance(folders, list) or not all(isinstance(f, str) and f.startswith("/") for f in folders):
        raise ValueError("it is a list of absolute paths, such as /data:/scratch")
    return tuple(folders)


def _seconds(value: object) -> float:
    return units.parse_duration(value) / 1000


def _registries(value: object) -> tuple[str, ...]:
    """A list, or a text with commas between."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(n, str) and n and "/" not in n for n in names):
        raise ValueError("it is a list of HOST:PORT, such as registry.lan:5000")
    return tuple(names)


def _servers(value: object) -> tuple[str, ...]:
    """A list, or a text with commas between."""
    urls = [url.strip() for url in value.split(",")] if isinstance(value, str) else value
    if not isinstance(urls, list) or not all(isinstance(url, str) and _URL.match(url) for url in urls):
        raise ValueError("it is a list of https://HOST:PORT, such as https://tow1.lan:7443")
    return tuple(url.rstrip("/") for url in urls)


def _engine(value: object) -> str:
    if value not in ENGINES:
        raise ValueError(f"the known ones are {' and '.join(ENGINES)}")
    return str(value)


MEMBERSHIP = "membership"
_URL = re.compile(r"https://[^/?#\s]+:\d{1,5}/?\Z")
_IMAGES, _POLICY = "images_", "policy_"
_PARSERS = {
    "node_name": ("name", _name),
    "node_cpu": ("cpu_milli", units.parse_cpu),
    "node_memory": ("memory_bytes", units.parse_bytes),
    "node_disk": ("disk_bytes", units.parse_bytes),
    "node_gpus": ("gpus", parse_gpus),
    "node_gpu_nodes": ("gpu_nodes", _folders),
    "node_labels": ("labels", parse_labels),
    "node_taints": ("taints", parse_taints),
    "cluster_servers": ("servers", _servers),
    "allowed_mounts": ("allowed_mounts", _folders),
    "oci_runtime": ("oci_runtime", _engine),
    "oci_userns": ("oci_userns", parse_flag),
    "files_user": ("files_user", parse_owner),
    "policy_capabilities": ("policy_capabilities", parse_capabilities),
    "policy_privileged": ("policy_privileged", parse_flag),
    "policy_users": ("policy_users", parse_words),
    "policy_exec": ("policy_exec", parse_flag),
    "artifacts_cache": ("artifacts_cache_bytes", units.parse_bytes),
    "idle_s": ("idle_s", _seconds),
    "images_pull_timeout": ("images_pull_timeout_s", _seconds),
    "images_pull_total": ("images_pull_total_s", _seconds),
    "images_max_bytes": ("images_max_bytes", units.parse_bytes),
    "images_insecure_registries": ("images_insecure_registries", _registries),
}
