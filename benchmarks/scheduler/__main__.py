"""``python -m benchmarks.scheduler``: the scheduler core in one table, the peers' numbers beside ours."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks.figures import Options
from benchmarks.scheduler import logs, openb, scale, shares
from benchmarks.scheduler.keeping import Kept
from benchmarks.scheduler.published import ALLOCATION
from benchmarks.scheduler.rows import Row, table
from towline import garbage

PARTS = ("openb", "logs", "scale", "shares")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 whatever was measured: targets are judged by people."""
    arguments = _parser().parse_args(argv)
    load = "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg())
    print(
        f"The scheduler core; {os.cpu_count()} CPUs, load {load}, Python {sys.version.split()[0]}", flush=True
    )
    garbage.settle()
    rows: list[Row] = []
    details: list[str] = []
    made: dict[str, Callable[[], list[Row]]] = {
        "openb": lambda: _openb(arguments, details),
        "logs": lambda: logs.rows(arguments.traces / "swf"),
        "scale": lambda: scale.rows(Options(pairs=arguments.pairs, scale=arguments.scale)),
        "shares": shares.rows,
    }
    for part in PARTS:
        if part in arguments.parts:
            rows += made[part]()
    print("\n".join(["", *table(rows), *([""] if details else []), *details]))
    if arguments.json is not None:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
    return 0


def _openb(arguments: argparse.Namespace, details: list[str]) -> list[Row]:
    kept = Kept(arguments.keep)
    traces = openb.Traces(arguments.traces / "openb", arguments.pods, arguments.seeds, kept)
    traces.run((openb.OWN,) if arguments.without_fgd else (openb.OWN, openb.PEER))
    details += [f"openb, means over {len(arguments.seeds)} seeds:", *openb.details(traces.found)]
    return openb.rows(traces)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", type=_part, help=f"all of: {', '.join(PARTS)}")
    parser.add_argument("--traces", type=_folder, required=True, help="where openb/ and swf/ are")
    parser.add_argument("--seeds", type=_seeds, default=_seeds("42-51"), help="of openb (42-51)")
    parser.add_argument(
        "--pods", type=_pods, default=list(ALLOCATION), help="openb's lists of pods (all nine)"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="openb's outcomes, to go on with an interrupted run"
    )
    parser.add_argument("--without-fgd", action="store_true", help="leave out our own run of FGD")
    parser.add_argument("--pairs", type=int, default=3, help="how often rates are measured (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="0.1: rates with a tenth of the elements")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.set_defaults(parts=list(PARTS))
    return parser


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"there is no part {text!r}: choose from {', '.join(PARTS)}")
    return text


def _folder(text: str) -> Path:
    path = Path(text)
    if not (path / "openb").is_dir() or not (path / "swf").is_dir():
        raise argparse.ArgumentTypeError(f"{text} has no folders openb and swf: name one that has")
    return path


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    if not first.isdecimal() or not (last or "0").isdecimal() or int(last or first) < int(first):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a seed nor a range such as 42-51")
    return list(range(int(first), int(last or first) + 1))


def _pods(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in ALLOCATION:
            raise argparse.ArgumentTypeError(
                f"there is no list {name!r}: choose from {', '.join(ALLOCATION)}"
            )
    return names


if __name__ == "__main__":
    sys.exit(main())
