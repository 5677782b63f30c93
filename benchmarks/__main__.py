"""``python -m benchmarks [NAME...]``: run them, print their tables."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks import (
    alone,
    artifacts,
    commits,
    containers,
    core,
    dag,
    images,
    latency,
    logs,
    million,
    packing,
    placement,
    scheduler_core,
    shipping,
    throughput,
    usage,
)
from benchmarks.clusters import finished, links, moving, pools, rates, scale, takeover
from benchmarks.figures import Options, Report, table, verdict

BENCHMARKS: dict[str, Callable[[Options], Report]] = {
    "core": core.run,
    "commits": commits.run,
    "scheduler-core": scheduler_core.run,
    "placement": placement.run,
    "packing": packing.run,
    "supervisor": alone.run,
    "latency": latency.run,
    "throughput": throughput.throughput,
    "fsyncs": throughput.fsyncs,
    "dag": dag.run,
    "images": images.run,
    "logs": logs.run,
    "logs-shipped": shipping.run,
    "artifacts": artifacts.run,
    "usage": usage.run,
    "crun": containers.crun,
    "runc": containers.runc,
    "million": million.run,
    "cluster": rates.run,
    "cluster-crun": rates.crun,
    "links": links.run,
    "finished": finished.run,
    "takeover": takeover.run,
    "pools": pools.run,
    "scale": scale.run,
    "moving": moving.run,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 whatever was measured: targets are judged by people."""
    arguments = _parser().parse_args(argv)
    options = Options(pairs=arguments.pairs, scale=arguments.scale)
    load = "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg())
    print(f"Towline's benchmarks; {os.cpu_count()} CPUs, load {load}, Python {sys.version.split()[0]}\n")
    reports: list[Report] = []
    for name in arguments.names or BENCHMARKS:
        begin = time.monotonic()
        report = BENCHMARKS[name](options)
        reports.append(report)
        print("\n".join(table(report)))
        print(f"   ({time.monotonic() - begin:.0f} s)\n", flush=True)
    print(verdict(reports))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(reports)) + b"\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", type=_known, help=f"all of: {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("--pairs", type=_positive, default=3, help="how often things are compared (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: with a tenth of the elements")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    return parser


def _known(name: str) -> str:
    if name not in BENCHMARKS:
        raise argparse.ArgumentTypeError(
            f"there is no benchmark {name!r}: choose from {', '.join(BENCHMARKS)}"
        )
    return name


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
