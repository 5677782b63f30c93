"""What an engine gives on this machine, found by starting a container with it and looking at that.

``python -m towline.runtime.oci.trial FOLDER ENGINE USERNS`` prints the finding as JSON. It is a program of
its own because it has to be alone in its mounts, as a supervisor is. The container's program is made
here, a few instructions that wait for ever, so that nothing has to be there but the engine.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import struct
import sys
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from towline.runtime.linux.spaces import become_subreaper, enter_mounts_without, hybrid_mount
from towline.runtime.oci.disk import disk_problem
from towline.runtime.oci.ids import COUNT, FIRST_ID, Ids
from towline.runtime.oci.rootless.possible import LACKS, rootless_problem
from towline.runtime.oci.rootless.runtime import RootlessRuntime
from towline.runtime.oci.rootless.space import subordinate_ids
from towline.runtime.oci.runtime import OciRuntime
from towline.runtime.oci.spec import OciData, Seccomp
from towline.runtime.policy import Wanted
from towline.runtime.port import Plan, StartFailed
from towline.runtime.seccomp import native_machine
from towline.runtime.spawning import null_device

_WAIT = {
    # pause(); again                       mov eax, 34; syscall; jmp
    "x86_64": (62, bytes.fromhex("b822000000 0f05 ebf7")),
    # ppoll(0, 0, 0, 0); again             movz x0..x3, 0; movz x8, 73; svc 0; b
    "aarch64": (183, struct.pack("<7I", 0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003,
                                 0xD2800928, 0xD4000001, 0x17FFFFFA)),
}  # fmt: skip
_MEMORY_BYTES, _PIDS = 64 << 20, 16
_PROGRAM = "wait"
_PATIENCE_S = 5.0
_BASE = 0x400000
_HEADERS_BYTES = 64 + 56


class Finding(Struct, kw_only=True):
    """``problem``: why no container starts. ``lacks`` gives, for each protection that it has not, why and
    what to do; ``seccomp`` is how the profile has to be given."""

    engine: str
    problem: str | None = None
    userns: bool = False
    seccomp: Seccomp | None = None
    protects: tuple[str, ...] = ()
    lacks: dict[str, str] = {}


def find_out(folder: Path, engine: str, userns: bool) -> Finding:
    """Start containers below ``folder`` until one gives as much as can be had. Never raises."""
    finding = Finding(engine=engine)
    machine = native_machine()
    if machine is None or platform.machine() not in _WAIT:
        finding.lacks["seccomp"] = f"there is no profile for {platform.machine()} machines yet"
    ways: list[Seccomp | None] = ["filter", "section"] if engine == "crun" else ["section"]
    ways = [*ways, None] if machine is not None else [None]
    if not userns:
        finding.lacks["userns"] = "it is turned off: leave out TOWLINE_OCI_USERNS"
    if os.geteuid() != 0:
        problem = rootless_problem(Wanted(userns=userns, owner=(os.geteuid(), os.getegid())))
        if problem is not None:
            finding.problem = problem
            return finding
    for with_ids in _choices(userns):
        for way in ways:
            try:
                seen = _try(folder, engine, with_ids, way)
            except (StartFailed, OSError) as error:
                finding.problem = str(error)
                finding.lacks.setdefault("userns" if way is None else "seccomp", str(error))
                continue
            if way is not None and "seccomp" not in seen:
                continue
            return _conclude(folder, finding, with_ids, way, seen)
    return finding


def _choices(userns: bool) -> tuple[bool, ...]:
    """With ids of their own first; an ordinary user has no others."""
    if os.geteuid() != 0:
        return (True,)
    return (True, False) if userns else (False,)


def _conclude(folder: Path, finding: Finding, ids: bool, way: Seccomp | None, seen: set[str]) -> Finding:
    finding.problem = None
    finding.userns, finding.seccomp = ids, way
    reasons = dict(LACKS)
    if os.geteuid() == 0:
        problem = disk_problem(folder)
        seen |= set() if problem else {"disk"}
        reasons = {"disk": problem or ""}
    finding.protects = tuple(sorted(seen))
    reasons |= finding.lacks
    finding.lacks = {
        name: reasons.get(name) or "the container had it not, for a reason that is not known"
        for name in ("userns", "seccomp", "memory", "cpu", "pids", "disk", "network", "rootfs")
        if name not in seen
    }
    return finding


def _try(folder: Path, engine: str, with_ids: bool, way: Seccomp | None) -> set[str]:
    """The protections of one container, as the kernel tells them. Raises StartFailed, OSError."""
    name = f"trial-{os.getpid()}"
    home = folder / name
    plan = _plan(home, engine, with_ids, way, name)
    runtime = OciRuntime(str(folder)) if os.geteuid() == 0 else RootlessRuntime(str(folder))
    _make_image(home / "rootfs")
    for made in (plan.directory, plan.out):
        Path(made).mkdir()
    null = null_device(str(home))
    pid = None
    try:
        launched = runtime.launch(plan, null, null)
        _, status = os.waitpid(launched.pid, 0)
        pid = runtime.confirm(plan, status)
        _await_program(pid)
        return _look(pid, runtime, plan)
    finally:
        os.close(null)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        _clean_up(runtime, plan, home)


def _clean_up(runtime: OciRuntime, plan: Plan, home: Path) -> None:
    command = runtime.cleanup(plan)
    if command is not None:
        os.waitpid(os.posix_spawnp(command[0], command, os.environ), 0)
        runtime.cleaned(plan)
    shutil.rmtree(home, ignore_errors=True)


def _plan(home: Path, engine: str, with_ids: bool, way: Seccomp | None, name: str) -> Plan:
    data = OciData(
        rootfs=str(home / "rootfs"), workdir="/", network="none", uid=0, gid=0, groups=(), home="/",
        mounts=(), engine=engine, seccomp=way,
        ids=Ids(FIRST_ID, COUNT, 0, os.getegid()) if with_ids and os.geteuid() == 0 else None,
        rootless=0 if os.geteuid() == 0 else subordinate_ids().size, owner=(os.geteuid(), os.getegid()),
    )  # fmt: skip
    return Plan(
        attempt=f"{name}-0-0-1", runtime="oci", argv=(f"/{_PROGRAM}",), env={},
        directory=str(home / "attempt"), logs=str(home / "logs"), out=str(home / "out"),
        timeout_ms=None, grace_ms=0, max_log_bytes=0, memory_bytes=_MEMORY_BYTES, pids=_PIDS,
        runtime_data=msgspec.to_builtins(data),
    )  # fmt: skip


def _look(pid: int, runtime: OciRuntime, plan: Plan) -> set[str]:
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    limits = runtime.limits(plan, pid)
    found = {
        "userns": not _same_space(pid, "user") and int(fields["Uid"].split()[0]) != 0,
        "seccomp": fields.get("Seccomp") == "2",
        "memory": limits.get("memory") == _MEMORY_BYTES,
        "pids": limits.get("pids") == _PIDS,
        "cpu": limits.get("cpu") == plan.cpu_milli,
        "network": not _same_space(pid, "net"),
        "rootfs": Path(f"/proc/{pid}/root/{_PROGRAM}").exists(),
    }
    return {name for name, given in found.items() if given}


def _await_program(pid: int) -> None:
    """The engine tells of success just before it executes the program."""
    deadline = time.monotonic() + _PATIENCE_S
    while Path(f"/proc/{pid}/comm").read_text().strip() != _PROGRAM and time.monotonic() < deadline:
        time.sleep(0.001)


def _same_space(pid: int, kind: str) -> bool:
    return os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/self/ns/{kind}")


def _make_image(rootfs: Path) -> None:
    for name in ("proc", "dev", "sys"):
        (rootfs / name).mkdir(parents=True)
    program = rootfs / _PROGRAM
    number, code = _WAIT.get(platform.machine(), _WAIT["x86_64"])
    program.write_bytes(_elf(number, code))
    program.chmod(0o755)
    rootfs.chmod(0o755)


def _elf(machine: int, code: bytes) -> bytes:
    """A static program of one segment, loaded with its headers."""
    size = _HEADERS_BYTES + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 2, machine, 1, _BASE + _HEADERS_BYTES, 64, 0, 0, 64, 56, 1, 0, 0, 0,
    )  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code


def main(folder: str, engine: str, userns: str) -> int:
    become_subreaper()
    if os.geteuid() == 0:
        enter_mounts_without(hybrid_mount())
    finding = find_out(Path(folder), engine, userns == "yes")
    sys.stdout.write(msgspec.json.encode(finding).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
