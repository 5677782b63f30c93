"""``tow simulate --faults``: histories of several servers in which everything goes wrong, by seed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson
from towline.cli.screen import terminal
from towline.cli.simulate.options import Progress, refused

if TYPE_CHECKING:
    from towline.simulation.faults import Verdict

MOST_SEED = 2**32 - 1
_RANGE = re.compile(r"([0-9]{1,10})-([0-9]{1,10})\Z")
_PER_TASK = 8
"""Seeds that one process is given at a time."""

Faults = Annotated[
    bool, typer.Option("--faults", help="Simulate servers, a store, nodes and clients while things break.")
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", help="The history to make; the same seed, the same one."),
]
Seeds = Annotated[str | None, typer.Option("--seeds", metavar="A-B", help="Several: from A to B.")]
Mode = Annotated[
    str | None,
    typer.Option(
        "--mode",
        metavar="MODE",
        help="safety: faults until the end. liveness: then all is healed and has to finish. "
        "By default the first for even seeds, the second for odd ones.",
    ),
]
Processes = Annotated[
    int, typer.Option("--processes", metavar="N", min=1, max=256, help="Seeds are shared out over so many.")
]


def simulate(
    context: typer.Context,
    faults: Faults = False,
    seed: Seed = None,
    seeds: Seeds = None,
    mode: Mode = None,
    processes: Processes = 1,
    json: AsJson = False,
) -> None:
    """Replay a trace in virtual time, through the scheduler that runs in production; or, with --faults, see
    whether several servers keep every promise while everything breaks.

    \b
    Examples:
      tow simulate swf log.swf --policy slowdown
      tow simulate --faults --seed 7
      tow simulate --faults --seeds 0-9999 --processes 4
    """
    if context.invoked_subcommand is not None:
        if faults:
            terminal.end(partial(_refuse, "--faults", "goes with no trace", "leave out the trace"))
        return
    if not faults:
        typer.echo(context.get_help())
        raise typer.Exit(terminal.OK)
    terminal.end(lambda: _simulate(_seeds(seed, seeds), _mode(mode), processes, json))


def _refuse(where: str, message: str, remedy: str) -> int:
    raise refused(where, message, remedy)


def _mode(mode: str | None) -> str | None:
    from towline.simulation.faults import MODES

    if mode is not None and mode not in MODES:
        raise refused("--mode", f"is {mode!r}", f"write {' or '.join(MODES)}")
    return mode


def _seeds(seed: int | None, seeds: str | None) -> range:
    """Raises InvalidDocument."""
    if (seed is None) == (seeds is None):
        raise refused(
            "--seed", "is needed, or --seeds" if seed is None else "and --seeds are both there", "give one"
        )
    if seed is not None:
        first = last = seed
    else:
        match = _RANGE.match(seeds or "")
        if match is None:
            raise refused("--seeds", f"is {seeds!r}", "write the first and the last, such as 0-499")
        first, last = int(match[1]), int(match[2])
    if not 0 <= first <= last <= MOST_SEED:
        raise refused(
            "--seed" if seeds is None else "--seeds",
            f"is {seeds or seed}",
            f"write 0 to {MOST_SEED}, in order",
        )
    return range(first, last + 1)


def _simulate(seeds: range, mode: str | None, processes: int, json: bool) -> int:
    broken = delivered = faults = 0
    alone = len(seeds) == 1
    with Progress("simulating", len(seeds), "seeds") as told:
        for done, verdict in enumerate(_verdicts(seeds, mode, processes), 1):
            told(done)
            delivered += verdict.delivered
            faults += verdict.fault_count
            broken += bool(verdict.broken)
            if json:
                terminal.write_json(verdict)
            elif alone or verdict.broken:
                terminal.write(str(verdict))
                if alone:
                    terminal.write(f"  faults: {terminal.counted(verdict.faults)}")
    if not json:
        _sum_up(len(seeds), delivered, faults, broken)
    return terminal.FAILED if broken else terminal.OK


def _sum_up(seeds: int, delivered: int, faults: int, broken: int) -> None:
    said = "nothing was lost, nothing was doubled" if not broken else f"{broken} broke a promise"
    terminal.write(f"{seeds:,} seeds, {delivered:,} messages, {faults:,} faults: {said}")


def _verdicts(seeds: range, mode: str | None, processes: int) -> Iterator[Verdict]:
    """In order of the seeds."""
    chunks = [seeds[at : at + _PER_TASK] for at in range(0, len(seeds), _PER_TASK)]
    run = partial(_run, mode=mode)
    with ExitStack() as stack:
        if processes == 1 or len(chunks) == 1:
            found: Iterator[Sequence[Verdict]] = map(run, ([seed] for seed in seeds))
        else:
            from multiprocessing import get_context

            pool = stack.enter_context(get_context("spawn").Pool(min(processes, len(chunks))))
            found = pool.imap(run, chunks)
        for verdicts in found:
            yield from verdicts


def _run(seeds: Sequence[int], mode: str | None) -> list[Verdict]:
    from towline.simulation.faults import simulate

    return [simulate(seed, mode) for seed in seeds]
