"""What an Engine is asked for: a Plan as the body of its ``POST /containers/create``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from towline.model.job import TaskSpec
from towline.runtime.devices import device_entries
from towline.runtime.oci.spec import OUT_TARGET
from towline.runtime.paths import resolve_mount
from towline.runtime.policy import Policy, refusals
from towline.runtime.port import Plan, StartFailed

LABEL_ATTEMPT = "towline.attempt"
LABEL_NODE = "towline.node"
_LEAST_LOG_BYTES = 64 << 20
_PERIOD_US = 100_000
_NVIDIA_NODES = "/dev/nvidia"


class Bind(Struct, frozen=True, kw_only=True):
    source: str
    target: str
    readonly: bool = False


class DockerData(Struct, frozen=True, kw_only=True):
    """``Plan.runtime_data`` of the docker runtime: all elements of a task on one node share it.

    ``image`` is the image's id in the Engine, so that it cannot become another one."""

    image: str
    image_digest: str
    user: str
    workdir: str
    network: str
    owner: tuple[int, int] = (0, 0)
    """(uid, gid) of the submitting user, to whom TOW_OUT is given back at the end."""
    binds: tuple[Bind, ...] = ()
    capabilities: tuple[str, ...] = ()
    privileged: bool = False


class Traits(Struct, frozen=True, kw_only=True):
    """What an Engine is like, as far as it changes what it is asked for.

    ``api``: the version of its API (``v1.41``), where it has said so; asking again takes Podman seconds.
    ``local``: it runs on this machine's kernel, and sees its files. ``first_ids``: what uid 0 and gid 0 of
    its containers are here, by its userns-remap. ``seccomp``: how it takes a profile, as a document
    (``inline``) or in a file of this machine; None: it is left to its own. ``disk``: it can limit what a
    container writes to its root. ``nvidia``: it has NVIDIA's runtime, which gives GPUs with their libraries.
    ``cgroup_parent``: the attempt's cgroup may lie below one of ours, whose counters outlive it.
    ``ulimits``: limits that have to be said, since the Engine's own defaults cannot be set here."""

    api: str = "auto"
    podman: bool = False
    local: bool = False
    first_ids: tuple[int, int] = (0, 0)
    seccomp: Literal["inline", "file"] | None = None
    disk: bool = False
    nvidia: bool = False
    cgroup_parent: bool = False
    ulimits: tuple[tuple[str, int], ...] = ()


def docker_data(
    task: TaskSpec,
    image: str,
    digest: str,
    user: str | None,
    workdir: str | None,
    allowed_roots: Sequence[str],
    policy: Policy,
    owner: tuple[int, int] = (0, 0),
) -> dict[str, Any]:
    """``user`` and ``workdir`` are the image's. Raises StartFailed for what the policy does not allow,
    and for mounts that are refused."""
    for refusal in refusals(task, policy):
        raise StartFailed(f"{refusal}.")
    data = DockerData(
        image=image,
        image_digest=digest,
        user=task.user or user or "",
        workdir=task.workdir or workdir or "/",
        network=task.network,
        owner=owner,
        binds=tuple(
            Bind(
                source=resolve_mount(mount.source, allowed_roots),
                target=mount.target,
                readonly=mount.readonly,
            )
            for mount in task.mounts
        ),
        capabilities=task.capabilities,
        privileged=task.privileged,
    )
    return msgspec.to_builtins(data)


def read_data(plan: Plan) -> DockerData:
    """Raises StartFailed where the plan was not made for this runtime."""
    try:
        return msgspec.convert(plan.runtime_data, DockerData)
    except msgspec.ValidationError as error:
        raise StartFailed(f"The plan of this attempt cannot be used by this build: {error}.") from None


def container_name(node: str, attempt: str) -> str:
    """One attempt of a node is one name, so that it cannot be made twice."""
    return f"towline-{node}-{attempt}"


def labels(node: str, attempt: str) -> dict[str, str]:
    return {LABEL_ATTEMPT: attempt, LABEL_NODE: node}


def container_config(
    plan: Plan, node: str, traits: Traits, cgroup: str, seccomp: str | None = None
) -> dict[str, Any]:
    """The whole body. ``cgroup`` is the parent cgroup, where traits allow one; ``seccomp`` what to say of
    the profile (see ``seccomp.py``), None: nothing. Raises StartFailed."""
    data = read_data(plan)
    return {
        "Image": data.image,
        "Entrypoint": list(plan.argv[:1]),
        "Cmd": list(plan.argv[1:]),
        "Env": [f"{name}={value}" for name, value in plan.env.items()],
        "User": data.user,
        "WorkingDir": data.workdir,
        "Labels": labels(node, plan.attempt),
        "Tty": False,
        "OpenStdin": False,
        # The image's check would run beside the command, at its cost. Podman takes even none for one, and
        # fails on it where there is no systemd.
        **({} if traits.podman else {"Healthcheck": {"Test": ["NONE"]}}),
        "HostConfig": {
            **_limits(plan, traits),
            **_rights(data, seccomp),
            **_devices(plan, traits),
            "NetworkMode": data.network,
            "Mounts": _mounts(plan, data),
            "LogConfig": _log_config(plan, traits),
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
            **({"CgroupParent": cgroup} if traits.cgroup_parent else {}),
        },
    }


def _limits(plan: Plan, traits: Traits) -> dict[str, Any]:
    """``MemorySwap`` is memory and swap together: as much as memory alone is no swap."""
    limits: dict[str, Any] = {
        "CpuPeriod": _PERIOD_US,
        "CpuQuota": max(1000, plan.cpu_milli * _PERIOD_US // 1000),
        "Ulimits": [{"Name": name, "Soft": most, "Hard": most} for name, most in traits.ulimits],
    }
    if plan.memory_bytes:
        limits |= {"Memory": plan.memory_bytes, "MemorySwap": plan.memory_bytes}
    if plan.pids:
        limits["PidsLimit"] = plan.pids
    if plan.disk_bytes and traits.disk:
        limits["StorageOpt"] = {"size": str(plan.disk_bytes)}
    return limits


def _rights(data: DockerData, seccomp: str | None) -> dict[str, Any]:
    """A profile that is not said is the Engine's own. A user namespace keeps privileged containers from
    what they ask for, so they get that of the machine."""
    if data.privileged:
        return {"Privileged": True, "UsernsMode": "host"}
    return {
        "CapDrop": ["ALL"],
        "CapAdd": list(data.capabilities),
        "SecurityOpt": ["no-new-privileges", *([] if seccomp is None else [f"seccomp={seccomp}"])],
        "IpcMode": "private",
    }


def _devices(plan: Plan, traits: Traits) -> dict[str, Any]:
    """By NVIDIA's runtime, where the Engine has it, since it also shows the driver's libraries; else the
    device nodes alone. Raises StartFailed for what is no device here."""
    if plan.devices and traits.nvidia and all(path.startswith(_NVIDIA_NODES) for path in plan.devices):
        names = plan.env.get("NVIDIA_VISIBLE_DEVICES", "").split(",")
        return {"DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": names, "Capabilities": [["gpu"]]}]}
    if traits.local:
        device_entries(plan.devices)
    return {
        "Devices": [
            {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rw"} for path in plan.devices
        ]
    }


def _mounts(plan: Plan, data: DockerData) -> list[dict[str, Any]]:
    """What is deeper in the tree comes later, so that it is not hidden by what is above it."""
    binds = [Bind(source=source, target=target, readonly=True) for source, target in plan.inputs]
    binds += data.binds
    binds.sort(key=lambda bind: bind.target.rstrip("/").count("/"))
    binds.append(Bind(source=plan.out, target=OUT_TARGET))
    return [
        {"Type": "bind", "Source": bind.source, "Target": bind.target, "ReadOnly": bind.readonly}
        for bind in binds
    ]


def _log_config(plan: Plan, traits: Traits) -> dict[str, Any]:
    """Docker's default (json-file) changes bytes that are no UTF-8; its ``local`` keeps them. The Engine's
    own copy is bounded too, well above what is kept of it."""
    limit = str(max(_LEAST_LOG_BYTES, 4 * plan.max_log_bytes))
    if traits.podman:
        return {"Type": "k8s-file", "Config": {}}
    return {"Type": "local", "Config": {"max-size": limit, "max-file": "2", "compress": "false"}}
