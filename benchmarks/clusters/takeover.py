"""How long nothing is placed when the server that leads is killed, or stopped: three servers, two nodes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import httpx2

from benchmarks.clusters.joined import start_agent
from benchmarks.clusters.shared_store import port_of, servers
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import PATIENCE_S, Home, fresh_home
from towline.client import Client

SERVERS = 3
NODES = 2
KILLS, STOPS = 20, 10
ELEMENTS = 100_000
LASTS_S = 0.4
AT_ONCE = 8
LOOK_S = 0.05
SETTLED_S = 3.0
"""Work goes on for so long before the next one is struck."""


def run(options: Options) -> Report:
    """SIGKILL and SIGTERM of the leader at default settings, under a load of short tasks."""
    kills, stops = options.count(KILLS, least=2), options.count(STOPS, least=1)
    with several() as (homes, folder):
        job = asyncio.run(_submit(homes[0], folder))
        found = {
            number: [_struck(homes, folder, number) for _ in range(count)]
            for number, count in ((signal.SIGKILL, kills), (signal.SIGTERM, stops))
        }
        kept = asyncio.run(_kept(homes, job))
    killed, stopped = found[signal.SIGKILL], found[signal.SIGTERM]
    return Report(
        name="takeover",
        title="how long nothing is placed when the leader dies",
        method=f"{SERVERS} servers on one PostgreSQL, {NODES} nodes with {AT_ONCE} elements of {LASTS_S} s "
        f"at a time, all on one machine; {kills} kills of the leader, {stops} clean stops; the longest time "
        "between two starts, by the files of the tasks",
        figures=[
            median_of("killed", killed, "s", most=6),
            Figure(name="killed, the slowest", value=max(killed), unit="s", most=10),
            median_of("stopped", stopped, "s"),
            Figure(name="stopped, the slowest", value=max(stopped), unit="s", most=1),
            Figure(name="attempts of what ran under stop all the while", value=kept, unit="", most=1),
        ],
    )


@contextmanager
def several() -> Generator[tuple[Sequence[Home], Path], None, None]:
    """Servers, of which each knows the others, with nodes; and a folder for what tasks write."""
    with servers(SERVERS) as (homes, _), ExitStack() as stack:
        folder = homes[0].path / "starts"
        folder.mkdir(mode=0o777)
        for at in range(NODES):
            start_agent(homes[0], stack.enter_context(fresh_home()), port_of(homes[0]), f"n{at}")
        yield homes, folder


async def _submit(server: Home, folder: Path) -> str:
    """Short tasks that write when they start, and one that runs all the while under stop."""
    write = f"read up _ </proc/uptime; echo $up >{folder}/$TOW_INDEX.$TOW_ATTEMPT; exec sleep {LASTS_S}"
    cpu = 2 * NODES / AT_ONCE
    path = server.path / "load.json"
    tasks = {
        "steady": {"runtime": "process", "command": ["sleep", "36000"], "on_disconnect": "stop",
                   "resources": {"cpu": 0.01}},
        "short": {"runtime": "process", "command": ["sh", "-c", write], "array": ELEMENTS,
                  "resources": {"cpu": cpu - 0.01, "memory": "16Mi"}},
    }  # fmt: skip
    path.write_text(json.dumps({"name": "load", "tasks": tasks}))
    async with Client(server.path / "tow.sock") as client:
        return (await client.submit(path)).id


async def _kept(homes: Sequence[Home], job: str) -> float:
    """How many attempts the steady one has had; raises where it does not run."""
    async with Client(homes[0].path / "tow.sock") as client:
        (element,) = (await (await client.job(job)).task("steady")).elements
    if element.state != "active":
        raise RuntimeError(f"what ran under stop is {element.state}: {element.message}")
    return float(len(element.attempts))


def _struck(homes: Sequence[Home], folder: Path, number: int) -> float:
    """The longest pause in what starts once the leader has got the signal; it runs again at the end."""
    _wait_for_starts(folder)
    leader = _leader(homes)
    begun_s = _uptime_s()
    leader.end_server(number)
    _wait_for_starts(folder)
    starts = [begun_s, *(at for at in _starts(folder) if at > begun_s)]
    pause_s = max(later - earlier for earlier, later in pairwise(sorted(starts)))
    leader.start_server(arguments=("--without-agent",))
    return pause_s


def _leader(homes: Sequence[Home]) -> Home:
    until_s = time.monotonic() + PATIENCE_S
    while True:
        for home in homes:
            transport = httpx2.HTTPTransport(uds=os.fspath(home.path / "tow.sock"))
            with httpx2.Client(transport=transport, base_url="http://towline", timeout=10) as http:
                for view in http.get("/v1/servers").json()["servers"]:
                    if view["leads"]:
                        return next(one for one in homes if one.env["TOWLINE_LISTEN"] == view["address"])
        if time.monotonic() > until_s:
            raise RuntimeError("no server leads")
        time.sleep(LOOK_S)


def _wait_for_starts(folder: Path) -> None:
    """Until elements have started for a while."""
    until_s, since_s = time.monotonic() + PATIENCE_S, _uptime_s()
    while not any(at > since_s for at in _starts(folder)):
        if time.monotonic() > until_s:
            raise RuntimeError("nothing starts")
        time.sleep(LOOK_S)
    time.sleep(SETTLED_S)


def _starts(folder: Path) -> list[float]:
    """In seconds since the boot."""
    found: list[float] = []
    for path in folder.iterdir():
        text = path.read_text().strip()
        if text:
            found.append(float(text))
    return found


def _uptime_s() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])
