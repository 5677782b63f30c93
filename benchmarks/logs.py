"""One container that prints as fast as it can: how fast its output is kept, and in how much memory."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from benchmarks import jobs
from benchmarks.containers import busybox_image
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import Home, fresh_home, spent
from towline.client import Client
from towline.client.secrets import Secrets

TEXT_BYTES = 64 << 20
TIMES = 32
SECRETS = {"TOKEN": b"ghp_0123456789abcdefghijABCDEFGHIJ012345", "PASSWORD": b"correct horse battery staple"}
MEASURED = ("floor", "plain", "masked", "plain cpu", "masked cpu")
NODE = ("agent", "keeper", "supervisor")


def run(options: Options) -> Report:
    """Plain and masked, in turn with `cat` of the same bytes through a pipe into a file."""
    times = options.count(TIMES)
    size_mb = times * TEXT_BYTES / 1e6
    with fresh_home() as home:
        (home.path / "in").mkdir()
        _write_text(home.path / "in" / "text")
        image = busybox_image(home.path)
        home.start_server()
        asyncio.run(_store(str(home.path / "tow.sock")))
        found: dict[str, list[float]] = {name: [] for name in MEASURED}
        _printed_s(home, image, 1, {})  # the image is unpacked
        with Memory(home) as memory:
            for _ in range(options.pairs):
                found["floor"].append(size_mb / _floor_s(home.path, times))
                for name, secrets in (("plain", {}), ("masked", {name: name for name in SECRETS})):
                    before = home.cpu_s()
                    found[name].append(size_mb / _printed_s(home, image, times, secrets))
                    cpu_s = spent(before, home.cpu_s())["supervisor"]
                    found[f"{name} cpu"].append(cpu_s / size_mb * 1000)
    method = (
        f"{size_mb:,.0f} MB of lines by `cat` in a container of busybox, in turn with `cat | cat > FILE` on "
        f"the same disk, {options.pairs} times; masked: with {len(SECRETS)} secrets, one in each 20th line; "
        f"memory: the most of the three together, looked at every 50 ms"
    )
    return Report(
        name="logs", title="output of one container", method=method, figures=_figures(found, memory)
    )


def _figures(found: dict[str, list[float]], memory: Memory) -> list[Figure]:
    pairs = list(zip(found["floor"], found["plain"], found["masked"], strict=True))
    return [
        median_of("kept", found["plain"], "MB/s", least=200),
        median_of("kept / floor", [plain / floor for floor, plain, _ in pairs]),
        median_of("kept and masked", found["masked"], "MB/s"),
        median_of("kept and masked / floor", [masked / floor for floor, _, masked in pairs]),
        median_of("floor", found["floor"], "MB/s"),
        median_of("CPU of the supervisor, kept", found["plain cpu"], "s/GB"),
        median_of("CPU of the supervisor, kept and masked", found["masked cpu"], "s/GB"),
        Figure(name="agent, keeper, supervisor: resident (RSS)", value=memory.rss_mb, unit="MB", most=100),
        Figure(name="... each one's share of shared pages counted (PSS)", value=memory.pss_mb, unit="MB"),
    ]


def _write_text(path: Path) -> None:
    """Lines as programs log them; of each 20 one has a secret in it."""
    source = random.Random(5)
    words = [source.randbytes(source.randrange(2, 6)).hex() for _ in range(2_000)]
    lines = [f"{at:08} INFO {' '.join(source.choices(words, k=8))}\n".encode() for at in range(20_000)]
    for at in range(0, len(lines), 20):
        lines[at] = b"login with " + source.choice(list(SECRETS.values())) + b"\n"
    block = b"".join(lines)
    with path.open("wb") as file:
        for at in range(0, TEXT_BYTES, len(block)):
            file.write(block[: TEXT_BYTES - at])


def _command(text: str, times: int) -> list[str]:
    return ["sh", "-c", f"n=0; while [ $n -lt {times} ]; do cat {text}; n=$((n+1)); done"]


def _floor_s(folder: Path, times: int) -> float:
    out = folder / "floor"
    begin = time.perf_counter()
    with out.open("wb") as file:
        printing = subprocess.Popen(_command(str(folder / "in" / "text"), times), stdout=subprocess.PIPE)
        subprocess.run(["cat"], stdin=printing.stdout, stdout=file, check=True)
        printing.wait()
    took_s = time.perf_counter() - begin
    out.unlink()
    return took_s


def _printed_s(home: Home, image: str, times: int, secrets: dict[str, str]) -> float:
    """Seconds from the start of the attempt to its end, when all is kept; its files are removed."""
    task: dict[str, Any] = {
        "image": image,
        "command": _command("/in/text", times),
        "mounts": [{"source": "./in", "target": "/in", "readonly": True}],
        "resources": {"cpu": 1, "memory": "64Mi"},
        "logs": {"max_bytes": 2 * times * TEXT_BYTES},
        "secrets": secrets,
    }
    path = home.path / "logs.json"
    path.write_text(json.dumps({"name": "logs", "tasks": {"t": task}}))
    took_s = asyncio.run(_run(str(home.path / "tow.sock"), path))
    for file in (home.path / "node" / "output").glob("*/std*"):
        file.unlink()
    return took_s


async def _store(socket: str) -> None:
    async with Client(socket) as client:
        for name, value in SECRETS.items():
            await Secrets(client).set(name, value)


async def _run(socket: str, path: Path) -> float:
    async with Client(socket) as client:
        job = await client.submit(path)
        jobs.length_s(await job.wait())
        (element,) = (await job.task("t")).elements
        attempt = element.attempts[-1]
        assert attempt.started_at is not None
        assert attempt.finished_at is not None
        return jobs.seconds_between(attempt.started_at, attempt.finished_at)


class Memory(AbstractContextManager["Memory"]):
    """The most that the node's processes held together while it was entered."""

    def __init__(self, home: Home) -> None:
        self.rss_mb = self.pss_mb = 0.0
        self._home = home
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        pids = [self._home.pid(role) for role in NODE]
        while not self._ended.wait(0.05):
            rss = pss = 0
            for pid in pids:
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    name, _, value = line.partition(":")
                    rss += int(value.split()[0]) if name == "Rss" else 0
                    pss += int(value.split()[0]) if name == "Pss" else 0
            self.rss_mb = max(self.rss_mb, rss * 1024 / 1e6)
            self.pss_mb = max(self.pss_mb, pss * 1024 / 1e6)
