"""Many short containers through the whole system, against a bare loop over the same config.json."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import jobs
from benchmarks.bare_loop import AT_A_TIME, CPU_MILLI, MEMORY_BYTES, PIDS, Measured
from benchmarks.figures import Figure, Options, Report, median_of
from benchmarks.home import Home, fresh_home, spent
from towline.images import ImageStore

ROOT = Path(__file__).parent.parent
PAIRS = 5


def crun(options: Options) -> Report:
    return _engine("crun", options)


def runc(options: Options) -> Report:
    return _engine("runc", options)


def _engine(engine: str, options: Options) -> Report:
    with fresh_home() as home:
        home.env["TOWLINE_OCI_RUNTIME"] = engine
        home.start_server()
        return measured_against_loop(engine, options, home, home.cpu_s, home.path)


def measured_against_loop(
    engine: str, options: Options, user: Home, cpu_s: Callable[[], dict[str, float]], folder: Path
) -> Report:
    """``user`` runs the job; ``cpu_s`` tells what all processes that work for it have used, ``folder`` is
    a place that the node's processes may read."""
    count = options.count(1_000, least=40)
    pairs = max(options.pairs, PAIRS) if options.scale >= 1 else options.pairs
    ours: list[Measured] = []
    bare: list[Measured] = []
    plain: list[Measured] = []
    image = busybox_image(folder)
    user.tow("run", jobs.written(_job("warm", image, 40), folder))
    rootfs = asyncio.run(ImageStore(folder / "unpacked").ensure(image, None)).rootfs
    file = jobs.written(_job("containers", image, count), folder)
    for _ in range(pairs):
        with_config, without = _loop(engine, rootfs, count)
        bare.append(with_config)
        plain.append(without)
        ours.append(_measured(user, cpu_s, file))
    resources = f"cpu: {CPU_MILLI / 1000:g}, seccomp and user namespace on, {AT_A_TIME} at a time"
    title = f"{count:,} x true in containers of {engine}, {resources}"
    method = (
        f"through `tow run` on a running server, in turn with xargs -P{AT_A_TIME} over the same config.json "
        f"and overlay (made before it is timed), {pairs} pairs"
    )
    return Report(name=engine, title=title, method=method, figures=_figures(count, ours, bare, plain))


def _figures(count: int, ours: list[Measured], bare: list[Measured], plain: list[Measured]) -> list[Figure]:
    def ratios(other: list[Measured]) -> list[float]:
        return [theirs.wall_s / mine.wall_s for theirs, mine in zip(other, ours, strict=True)]

    above = [(mine.cpu_s - loop.cpu_s) / count * 1000 for mine, loop in zip(ours, bare, strict=True)]
    return [
        median_of("tow run / loop with the same config.json", ratios(bare), "x", least=0.85),
        median_of("tow run / plain run of a bare bundle", ratios(plain), "x", least=0.7),
        median_of("CPU an element above the loop's", above, "ms", most=3.0),
        median_of("tow run", [count / one.wall_s for one in ours], "/s"),
        median_of("the loop", [count / one.wall_s for one in bare], "/s"),
        median_of("plain run", [count / one.wall_s for one in plain], "/s"),
    ]


def _measured(user: Home, cpu_s: Callable[[], dict[str, float]], file: str) -> Measured:
    before = cpu_s()
    run = user.tow("run", file)
    return Measured(run.wall_s, sum(spent(before, cpu_s()).values()))


def _loop(engine: str, rootfs: Path, count: int) -> list[Measured]:
    with tempfile.TemporaryDirectory(prefix="tow-bench-loop-", ignore_cleanup_errors=True) as folder:
        argv = [sys.executable, "-m", "benchmarks.bare_loop", engine, str(rootfs), folder, str(count)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"the bare loop failed: {done.stderr[-2000:]}")
    return [Measured(*one) for one in json.loads(done.stdout)]


def busybox_image(folder: Path) -> str:
    script = ROOT / "scripts" / "build-busybox-image.sh"
    subprocess.run([script, folder / "busybox", "1"], check=True, capture_output=True)
    return f"oci:{folder / 'busybox'}:1"


def _job(name: str, image: str, count: int) -> jobs.Tree:
    resources = {"cpu": CPU_MILLI / 1000, "memory": MEMORY_BYTES, "pids": PIDS}
    return {
        "name": name,
        "tasks": {"t": {"image": image, "command": ["true"], "array": count, "resources": resources}},
    }
