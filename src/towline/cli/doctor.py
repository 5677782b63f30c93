"""``tow doctor``, ``nodes``, ``version`` and ``stop``: this machine and the server on it."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from towline.cli import containers
from towline.cli.arguments import AsJson, OfPool
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client
    from towline.model.views import NodeView

_VERSION_FLAGS = {"mkfs.ext4": "-V"}
LOW_DISK_BYTES = 1024**3

_ROLES = {
    "towline.launch server": "server",
    "towline.launch agent": "agent",
    "towline.agent.keeper": "keeper",
    "towline.agent.supervisor": "supervisor",
}
_PROGRAMS = {
    "crun": "starts containers",
    "runc": "starts containers, where crun is not there or TOWLINE_OCI_RUNTIME says so",
    "mkfs.ext4": "gives containers disks that end, for resources.disk",
    "umoci": "unpacks images",
    "skopeo": "copies images from registries",
}


def add(app: typer.Typer) -> None:
    app.command("doctor")(doctor)
    app.command("nodes")(nodes)
    app.command("version")(version)
    app.command("stop")(stop)


def doctor(json: AsJson = False) -> None:
    """Say what this machine can and cannot give, and remedies.

    Shows Towline's processes, the runtimes, cgroups, versions, folders and free space.

    The exit status is 1 where something needs to be done.

    \b
    Example:
      tow doctor
    """

    def work() -> int:
        report = _report()
        if json:
            terminal.write_json(report)
        else:
            _print(report)
        return terminal.FAILED if report["problems"] else terminal.OK

    terminal.end(work)


def nodes(pool: OfPool = None, json: AsJson = False) -> None:
    """List the machines that run elements, with what is free on them, their labels and taints.

    \b
    Examples:
      tow nodes
      tow nodes --pool gpu
    """

    async def work(client: Client) -> int:
        from towline.model.units import human_bytes

        views = await client.nodes(pool)
        if json:
            terminal.write_json({"nodes": views})
            return terminal.OK
        names = _told_apart(views)
        several = len({view.pool for view in views}) > 1
        rows = [
            (
                names[view.id],
                view.pool if several else None,
                view.state,
                f"{view.cpu_free:g}/{view.cpu:g}",
                f"{human_bytes(view.memory_free_bytes)}/{human_bytes(view.memory_bytes)}",
                _gpus(view),
                " ".join(f"{name}={value}" for name, value in view.labels.items()) or None,
                " ".join(view.taints) or None,
                ", ".join(name for name, problem in view.runtimes.items() if problem is None) or "none",
            )
            for view in views
        ]
        header = (
            "node",
            "pool",
            "state",
            "cpu free",
            "memory free",
            "gpus free",
            "labels",
            "taints",
            "runtimes",
        )
        # What no node has is no column.
        kept = [
            at
            for at, name in enumerate(header)
            if any(row[at] is not None for row in rows) or (not rows and name != "pool")
        ]
        terminal.table([header[at] for at in kept], [[row[at] for at in kept] for row in rows])
        return terminal.OK

    terminal.ask(work)


def _told_apart(views: list[NodeView]) -> dict[str, str]:
    """How nodes are called, by their ids: by name, and where several have one, by name and id."""
    count = Counter(view.name for view in views)
    return {v.id: v.name if count[v.name] == 1 else f"{v.name} ({v.id})" for v in views}


def _gpus(view: NodeView) -> str | None:
    """``2.5/4 A100, 1/2 1g.5gb``: what is free of how many devices and slices of each sort."""
    free: dict[str, int] = {}
    count: dict[str, int] = {}
    for gpu in view.gpus:
        sort = gpu.slice or gpu.model
        free[sort] = free.get(sort, 0) + gpu.free_milli
        count[sort] = count.get(sort, 0) + 1
    return ", ".join(f"{free[sort] / 1000:g}/{count[sort]} {sort}" for sort in free) or None


def version(json: AsJson = False) -> None:
    """Print the version of this program."""

    def work() -> None:
        from towline import __version__
        from towline.build import build

        if json:
            terminal.write_json(
                {"version": __version__, "build": build(), "python": platform.python_version()}
            )
        else:
            terminal.write(f"tow {build()}, Python {platform.python_version()}")

    terminal.end(work)


def stop(json: AsJson = False) -> None:
    """End the local server. Containers go on; the next command starts a server again.

    \b
    Example:
      tow stop
    """

    async def ended() -> bool:
        from towline.client import Client
        from towline.client.local import LocalServer, home_directory
        from towline.errors import Unavailable

        local = LocalServer(home_directory())
        async with Client(local.socket, patience_s=0) as client:
            try:
                await client.stop_server()
            except Unavailable:
                return False
        await local.gone()
        return True

    def work() -> None:
        import asyncio

        stopped = asyncio.run(ended())
        if json:
            terminal.write_json({"stopped": stopped})
        else:
            terminal.say("The local server has ended." if stopped else "No local server runs.")

    terminal.end(work)


def _report() -> dict[str, Any]:
    """All findings; ``problems`` are sentences with remedies."""
    from towline.build import build
    from towline.client.local import SERVER_LOG, home_directory
    from towline.model.units import human_bytes

    home = home_directory()
    server, nodes_found, problems = _server()
    free = shutil.disk_usage(home).free
    if free < LOW_DISK_BYTES:
        problems.append(
            f"Only {human_bytes(free)} are free on the disk of {home}: make room, or move TOWLINE_HOME."
        )
    programs = {name: _version_of(name) for name in _PROGRAMS}
    for node in nodes_found:
        problems += containers.problems_of(node.runtimes)
    return {
        "build": build(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "home": str(home),
        "server_log": str(home / SERVER_LOG),
        "disk_free_bytes": free,
        "server": server,
        "processes": [{"role": role, "pid": pid} for role, pid in processes_of(home)],
        "cgroups": _cgroups(),
        "programs": programs,
        "engines": containers.engines(home),
        "nodes": nodes_found,
        "problems": problems,
    }


def _server() -> tuple[Any, list[Any], list[str]]:
    """The server's and its nodes' views, or why there are none: a doctor also looks at what is broken."""
    from towline.errors import TowlineError

    seen: list[Any] = []

    async def work(client: Client) -> int:
        seen.append(await client.server())
        seen.append(await client.nodes())
        return terminal.OK

    try:
        terminal.served(work)
    except TowlineError as error:
        return None, [], [str(error)]
    server, found = seen
    nobody = ["No node has reported yet: run tow doctor again in a few seconds."]
    return server, found, [*server.problems, *([] if found else nobody)]


def processes_of(home: Path) -> list[tuple[str, int]]:
    """(role, pid) of Towline's processes for this home, as far as /proc shows them."""
    found: dict[int, tuple[str, int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            line = " ".join(words)
            role = next((role for text, role in _ROLES.items() if f"-m {text}" in line), None)
            if role is not None and any(word == str(home) or word.startswith(f"{home}/") for word in words):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(folder.name)] = role, parent
    # What one of them is about to become another program looks like its parent until then.
    own = [(role, pid) for pid, (role, parent) in found.items() if found.get(parent, ("", 0))[0] != role]
    return sorted(own, key=lambda item: (list(_ROLES.values()).index(item[0]), item[1]))


def _cgroups() -> dict[str, object]:
    """``layout`` is v1, v2, hybrid or none; ``controllers`` those that can limit containers."""
    try:
        mounts = [line.split(" ") for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return {"layout": "none", "controllers": []}
    second = next((mount[1] for mount in mounts if mount[2] == "cgroup2"), None)
    first = {name for mount in mounts if mount[2] == "cgroup" for name in mount[3].split(",")}
    controllers = first & {"cpu", "memory", "pids"}
    if second is not None and not first:
        with contextlib.suppress(OSError):
            controllers = set((Path(second) / "cgroup.controllers").read_text().split())
    layout = {(True, True): "hybrid", (True, False): "v1", (False, True): "v2"}
    return {
        "layout": layout.get((bool(first), second is not None), "none"),
        "controllers": sorted(controllers),
    }


def _version_of(program: str) -> str | None:
    path = shutil.which(program)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, _VERSION_FLAGS.get(program, "--version")],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "does not run"
    return (done.stdout or done.stderr).strip().splitlines()[0] if done.stdout or done.stderr else "unknown"


def _print(report: dict[str, Any]) -> None:
    from towline.model.units import human_bytes

    def line(name: str, value: object) -> None:
        terminal.write(f"{name + ':':<14}{terminal.safe(str(value))}")

    line("towline", f"{report['build']}, Python {report['python']}, Linux {report['kernel']}")
    line("user", "root" if os.geteuid() == 0 else f"{os.geteuid()} (containers in a namespace of this user)")
    line("home", f"{report['home']} ({human_bytes(report['disk_free_bytes'])} free)")
    line("server log", report["server_log"])
    running = ", ".join(f"{found['role']} {found['pid']}" for found in report["processes"])
    line("processes", running or "none")
    line("cgroups", f"{report['cgroups']['layout']}: {', '.join(report['cgroups']['controllers']) or 'none'}")
    for name, found in report["programs"].items():
        line(name, found or f"not installed ({_PROGRAMS[name]})")
    for name, engine in report["engines"].items():
        for text in containers.lines_of(name, engine):
            line(f"  {name}", text)
    for node in report["nodes"]:
        line("node", f"{node.name} ({node.state}): {node.cpu:g} CPUs, {human_bytes(node.memory_bytes)}")
        for name, problem in node.runtimes.items():
            line(f"  {name}", "can be used" if problem is None else problem)
    for problem in report["problems"]:
        sys.stdout.flush()
        terminal.say(f"problem: {terminal.safe(problem)}")
