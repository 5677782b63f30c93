"""The supervisor's half of a container: config.json, by which the engine sets it up.

The format is https://github.com/opencontainers/runtime-spec (1.0.2), which crun and runc read. Folders of
the node (mounts, inputs, TOW_OUT) are not in it: ``binds`` has them in the root before.
"""

from __future__ import annotations

import base64
import os
import resource
from functools import lru_cache
from pathlib import Path
from typing import Any

from towline.runtime.cgroups import PARENT, Cgroups
from towline.runtime.devices import device_entries
from towline.runtime.oci.ids import mappings_around
from towline.runtime.oci.spec import OciData
from towline.runtime.port import Plan
from towline.runtime.seccomp import Profile, compile_filter, load_profile, native_machine, oci_section

_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000  # the kernel refuses less
_OPEN_FILES = (1024, 524_288)  # as systemd: select() fails above 1024, and who needs more asks for it
_HOST_NAME_LENGTH = 63
_DEVICES_BYTES = 1 << 20
_CRUN_FILTER = "run.oci.seccomp_bpf_data"


def build_config(
    plan: Plan, data: OciData, root: str, cgroups: Cgroups | None, cgroup: str, oom_score: int
) -> dict[str, Any]:
    """config.json of one attempt, whose root folder is mounted at ``root`` and whose cgroup has this name.
    Without ``cgroups`` it gets none, and of its limits only that of processes."""
    devices = device_entries(plan.devices)
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in _namespaces(data)],
        "maskedPaths": [] if data.privileged else _MASKED,
        "readonlyPaths": [] if data.privileged else _READ_ONLY,
    }
    if devices.nodes:
        linux["devices"] = devices.nodes
    if cgroups is not None:
        linux["cgroupsPath"] = f"{PARENT}/{cgroup}"
        linux["resources"] = _limits(plan, data, cgroups, devices.rules)
    if data.ids is not None:
        linux["uidMappings"] = linux["gidMappings"] = data.ids.mappings()
    elif data.rootless:
        linux["uidMappings"] = mappings_around(data.uid, data.rootless)
        linux["gidMappings"] = mappings_around(data.gid, data.rootless)
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "hostname": plan.attempt[-_HOST_NAME_LENGTH:].strip("-"),
        "root": {"path": root, "readonly": False},
        "process": _process(plan, data, oom_score),
        "mounts": _system_mounts(plan, data),
        "linux": linux,
    }
    if data.seccomp == "filter":
        config["annotations"] = {_CRUN_FILTER: _filter(frozenset(data.capabilities))}
    elif data.seccomp == "section":
        linux["seccomp"] = _section(frozenset(data.capabilities))
    return config


@lru_cache(maxsize=64)
def _filter(capabilities: frozenset[str]) -> str:
    return base64.b64encode(compile_filter(_profile(capabilities))).decode()


@lru_cache(maxsize=64)
def _section(capabilities: frozenset[str]) -> dict[str, Any]:
    return oci_section(_profile(capabilities))


def _profile(capabilities: frozenset[str]) -> Profile:
    machine = native_machine()
    assert machine is not None, "seccomp is asked for only where the agent found a profile"
    return load_profile(machine, capabilities)


def _process(plan: Plan, data: OciData, oom_score: int) -> dict[str, Any]:
    env = plan.env if "HOME" in plan.env else {**plan.env, "HOME": data.home}
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (min(wanted, hard) if hard >= 0 else wanted for wanted in _OPEN_FILES)
    granted = _all_capabilities() if data.privileged else [f"CAP_{name}" for name in data.capabilities]
    return {
        "terminal": False,
        "user": {"uid": data.uid, "gid": data.gid, "additionalGids": list(data.groups)},
        "args": list(plan.argv),
        "env": [f"{name}={value}" for name, value in env.items()],
        "cwd": data.workdir,
        "noNewPrivileges": not data.privileged,
        "capabilities": dict.fromkeys(_CAPABILITY_SETS, granted),
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            *_process_limit(plan, data),
        ],
        "oomScoreAdj": oom_score,
    }


def _process_limit(plan: Plan, data: OciData) -> list[dict[str, Any]]:
    """The kernel counts a user's processes in each user namespace by itself (since Linux 5.14)."""
    if not data.rootless or not plan.pids:
        return []
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = min(plan.pids, hard) if hard >= 0 else plan.pids
    return [{"type": "RLIMIT_NPROC", "soft": most, "hard": most}]


@lru_cache(maxsize=1)
def _all_capabilities() -> list[str]:
    """Those that we have ourselves: nobody can give more."""
    status = Path("/proc/self/status").read_text()
    ours = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), 16)
    return [f"CAP_{name}" for number, name in enumerate(_CAPABILITIES) if ours & (1 << number)]


def _namespaces(data: OciData) -> list[str]:
    kinds = ["pid", "mount", "ipc", "uts", "cgroup"]
    if data.network != "host":
        kinds.append("network")
    if data.has_userns:
        kinds.append("user")
    return kinds


def _limits(
    plan: Plan, data: OciData, cgroups: Cgroups, device_rules: list[dict[str, Any]]
) -> dict[str, Any]:
    """Version 2's weight is made of the shares by the engine."""
    quota = plan.cpu_milli * _PERIOD_US // 1000
    period = _PERIOD_US
    if quota < _LEAST_QUOTA_US:
        quota, period = max(_LEAST_QUOTA_US, plan.cpu_milli * 1000), 1_000_000
    limits: dict[str, Any] = {
        "devices": [{"allow": data.privileged, "access": "rwm"}, *device_rules],
        "cpu": {"shares": max(2, plan.cpu_milli * 1024 // 1000), "quota": quota, "period": period},
    }
    if plan.memory_bytes:
        limits["memory"] = {"limit": plan.memory_bytes}
        if cgroups.limits_swap:
            limits["memory"]["swap"] = plan.memory_bytes
    if plan.pids:
        limits["pids"] = {"limit": plan.pids}
    return limits


# --- what it sees of the system -----------------------------------------------------------------------


def shows_machines_sysfs(data: OciData) -> bool:
    """Whether /sys has to be shown by us: a user namespace may mount it only for a network of its own."""
    return data.has_userns and data.network == "host"


def _system_mounts(plan: Plan, data: OciData) -> list[dict[str, Any]]:
    """What is in memory counts as the container's, but for /dev a size stands beside that."""
    shared_bytes = plan.memory_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    writable = "rw" if data.privileged else "ro"
    mounts = [
        _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", f"size={_DEVICES_BYTES}"),
        _mount(
            "/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", f"size={shared_bytes}"),
        _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", writable),
        _mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro"),
    ]
    if shows_machines_sysfs(data):
        mounts = [mount for mount in mounts if mount["type"] != "sysfs"]
    if data.rootless:
        mounts = [mount for mount in mounts if mount["type"] != "cgroup"]
    return mounts


def _mount(target: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": list(options)}


_CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
_CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""".split()  # noqa: SIM905 - a list to read
"""In the order of their numbers."""
# Version 1's hierarchies are mounted read-only. Their holder is a small tmpfs of the container's own, and
# not in these lists: shown again as read-only, crun would have the hierarchies in it writable.
_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
]
_READ_ONLY = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
]
