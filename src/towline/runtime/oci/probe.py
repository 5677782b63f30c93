"""Whether this machine can run containers, and if not, why and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from towline.build import build
from towline.runtime.cgroups import PARENT, Cgroups, find_cgroups
from towline.runtime.oci.engine import ENGINES
from towline.runtime.oci.ids import COUNT, FIRST_ID, Ids
from towline.runtime.oci.rootless.possible import rootless_problem
from towline.runtime.oci.rootless.space import SpaceUnavailable, find_programs, subordinate_ids
from towline.runtime.oci.spec import Isolation
from towline.runtime.oci.trial import Finding
from towline.runtime.policy import Wanted
from towline.runtime.port import Probe, StartFailed
from towline.runtime.spawning import DEFAULT_PATH, find_program

_TIMEOUT_S = 10
_TRIAL_TIMEOUT_S = 60
_LEAST_KERNEL = (5, 12)
_CAP_SYS_ADMIN = 1 << 21


class Probed(NamedTuple):
    """``isolation`` is what containers get here; None where none can run."""

    probe: Probe
    isolation: Isolation | None


def probe_oci(node_dir: Path, wanted: Wanted) -> Probed:
    """Blocks for about half a second where this node has not been tried since the machine's start."""
    problem = _system_problem() or _umoci_problem() or _rights_problem(wanted)
    if problem is not None:
        return Probed(Probe(name="oci", version=None, problem=problem), None)
    found: list[Probed] = []
    for name in [wanted.engine] if wanted.engine else ENGINES:
        found.append(_probe_engine(node_dir, name, wanted))
        if found[-1].isolation is not None:
            return found[-1]
    return found[0]


def probe_engines(node_dir: Path, wanted: Wanted) -> dict[str, Probe]:
    """What each engine would give, whichever is in use."""
    problem = _system_problem() or _rights_problem(wanted)
    if problem is not None:
        return {name: Probe(name=name, version=None, problem=problem) for name in ENGINES}
    return {name: _probe_engine(node_dir, name, wanted).probe for name in ENGINES}


def _probe_engine(node_dir: Path, name: str, wanted: Wanted) -> Probed:
    version, problem = _ask_engine(name)
    if problem is not None:
        return Probed(Probe(name="oci", version=version, problem=problem), None)
    finding = _tried_before(node_dir, name, version, wanted) or _try(node_dir, name, version, wanted)
    probe = Probe(
        name="oci",
        version=f"{name} {version}",
        problem=finding.problem,
        protects=finding.protects,
        lacks=finding.lacks,
    )
    if finding.problem is not None:
        return Probed(probe, None)
    uid, gid = wanted.owner
    root = os.geteuid() == 0
    return Probed(probe, Isolation(
        engine=name,
        ids=Ids(FIRST_ID, COUNT, uid, gid) if finding.userns and root else None,
        seccomp=finding.seccomp,
        policy=wanted.policy,
        owner=wanted.owner,
        rootless=0 if root else subordinate_ids().size,
    ))  # fmt: skip


# --- the trial, once for a machine's start, an engine and a build ----------------------------------------


def _record(node_dir: Path, engine: str) -> Path:
    return node_dir / f"trial-{engine}.json"


def _key(version: str | None, wanted: Wanted) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    ids = None if os.geteuid() == 0 else tuple(subordinate_ids())
    return f"{boot} {os.uname().release} {version} {wanted.userns} {ids} {build()}"


def _tried_before(node_dir: Path, engine: str, version: str | None, wanted: Wanted) -> Finding | None:
    try:
        key, finding = msgspec.json.decode(_record(node_dir, engine).read_bytes(), type=tuple[str, Finding])
    except (OSError, msgspec.MsgspecError):
        return None
    return finding if key == _key(version, wanted) else None


def _try(node_dir: Path, engine: str, version: str | None, wanted: Wanted) -> Finding:
    """In a process that is alone in its mounts, as a supervisor is."""
    node_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    argv = [sys.executable, "-P", "-m", "towline.runtime.oci.trial", str(node_dir), engine]
    argv.append("yes" if wanted.userns else "no")
    try:
        done = subprocess.run(argv, capture_output=True, timeout=_TRIAL_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(engine=engine, problem=f"no container could be tried ({error}): run tow doctor again")
    try:
        finding = msgspec.json.decode(done.stdout, type=Finding)
    except msgspec.MsgspecError:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        return Finding(engine=engine, problem=f"no container could be tried: {last[:500]}")
    if finding.problem is None:
        fresh = _record(node_dir, f"{engine}.{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode((_key(version, wanted), finding)))
        fresh.replace(_record(node_dir, engine))
    return finding


# --- what has to be there before anything can be tried ----------------------------------------------------


def _system_problem() -> str | None:
    system = os.uname().sysname
    if system != "Linux":
        return f"containers need Linux, and this is {system}: use a Linux machine or virtual machine"
    release = os.uname().release
    kernel = tuple(int(part) for part in release.partition("-")[0].split(".")[:2])
    if kernel < _LEAST_KERNEL:
        return f"containers need Linux 5.12 or newer, and this is {release}: upgrade the kernel"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text() and not _load_overlay():
        return "the kernel has no overlay file system: modprobe overlay, as root"
    return None


def _rights_problem(wanted: Wanted) -> str | None:
    """Of root: whether it has root's rights; of an ordinary user what he needs instead."""
    if os.geteuid() != 0:
        return _user_problem(wanted)
    status = Path("/proc/self/status").read_text()
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff")), "0")
    if not int(effective, 16) & _CAP_SYS_ADMIN:
        return (
            "this root may not make mounts and namespaces (it lacks CAP_SYS_ADMIN): run on the machine "
            "itself, or in a container with --privileged"
        )
    return _cgroup_problem()


def _user_problem(wanted: Wanted) -> str | None:
    """What a trial would find first, without one: it needs a process of its own."""
    if wanted.owner != (os.geteuid(), os.getegid()):
        return rootless_problem(wanted)
    try:
        find_programs()
        subordinate_ids()
    except SpaceUnavailable as error:
        return str(error)
    return None


def _load_overlay() -> bool:
    try:
        return (
            subprocess.run(["modprobe", "overlay"], capture_output=True, timeout=_TIMEOUT_S).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def _find(program: str) -> str | None:
    try:
        return find_program(program, os.environ.get("PATH", DEFAULT_PATH))
    except StartFailed:
        return None


def _ask_engine(name: str) -> tuple[str | None, str | None]:
    """Its version, or what is wrong with it."""
    program = _find(name)
    if program is None:
        return None, f"{name}, which runs containers, is not installed: apt-get install {name}"
    again = f"install it again with apt-get install --reinstall {name}"
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"{program} cannot be run ({error}): {again}"
    words = answer.stdout.split()
    if answer.returncode != 0 or words[:2] != [name, "version"]:
        return None, f"{program} does not tell its version: {again}"
    return words[2], None


def _umoci_problem() -> str | None:
    if _find("umoci") is None:
        return "umoci, which unpacks images, is not installed: apt-get install umoci"
    return None


def _cgroup_problem() -> str | None:
    try:
        cgroups = find_cgroups()
        missing = cgroups.missing()
        if missing:
            return (
                f"the cgroups of this machine give no limits on {', '.join(missing)}: boot the kernel with "
                f"these controllers, or give them to this container"
            )
        cgroups.make_parent()
    except OSError as error:
        return _not_writable(error)
    return _delegation_problem(cgroups)


def _not_writable(error: OSError) -> str:
    what = error.strerror or str(error)
    return (
        f"cgroups cannot be made under /sys/fs/cgroup ({what}): mount it writable "
        f"(in a container: --privileged --cgroupns=host)"
    )


def _delegation_problem(cgroups: Cgroups) -> str | None:
    """In version 2 a cgroup passes controllers on only if no process is in it, but for the true root."""
    if cgroups.version == 1:
        return None
    root = Path(cgroups.mounts[""])
    enabled = (root / "cgroup.subtree_control").read_text().split()
    missing = [name for name in ("cpu", "memory", "pids") if name not in enabled]
    try:
        if missing:
            (root / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in missing))
    except OSError as error:
        return (
            f"the cgroup {root} does not pass its controllers on to {PARENT} ({error.strerror}): run on the "
            f"machine itself, or in a container with --cgroupns=host"
        )
    return None
