"""``tow top``: what running elements and their nodes use at the moment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from towline.cli.arguments import AsJson, OfPool, complete_job
from towline.cli.screen import terminal
from towline.cli.screen.terminal import Reference, length, safe

if TYPE_CHECKING:
    from rich.live import Live

    from towline.client import Client
    from towline.model.views import ElementUsageView, NodeUsageView, UsageView

NODES_SHOWN = 4
SHORTEST_S = 0.1
LONGEST_S = 3600.0
_HEADER = ("element", "cpu", "of", "memory", "peak", "limit", "pids", "output", "runs", "node")
_ORDERS: dict[str, Callable[[ElementUsageView], float]] = {
    "cpu": lambda element: element.cpu or 0.0,
    "memory": lambda element: element.memory_bytes or 0,
    "pids": lambda element: element.pids or 0,
    "output": lambda element: element.output_bytes,
    "time": lambda element: element.run_seconds or 0.0,
}


class Shown(NamedTuple):
    """Of what: of a job or part of one, else of all that runs, in one pool or in all."""

    named: Reference | None
    pool: str | None


def add(app: typer.Typer) -> None:
    app.command("top")(top)


def top(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[JOB[/TASK[.INDEX]]]", help="Of these only.", autocompletion=complete_job),
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", "-d", metavar="SECONDS", help="From one look to the next.")
    ] = 1.0,
    sort: Annotated[
        str, typer.Option("--sort", metavar="COLUMN", help=f"The largest first, by {', '.join(_ORDERS)}.")
    ] = "cpu",
    pool: OfPool = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, print a table and end.")] = False,
    json: AsJson = False,
) -> None:
    """Show what running elements use: CPU, memory, processes, output.

    On a terminal the table is drawn again at each interval, until Ctrl-C. With --once or --json, and into
    a file or pipe, it is printed once. CPU is in cores, over the last interval. Nodes read their counters
    only while somebody looks.

    \b
    Examples:
      tow top
      tow top flights/count --sort memory
      tow top --once | head -20
      tow top --pool gpu
      tow top --json | jq '.elements[] | {name, cpu, memory_bytes}'
    """

    async def work(client: Client) -> int:
        from towline.errors import RequestError

        if sort not in _ORDERS:
            raise RequestError(f"--sort is one of {', '.join(_ORDERS)}, and not {safe(sort)!r}.")
        if not SHORTEST_S <= interval <= LONGEST_S:
            raise RequestError(f"--interval is {SHORTEST_S:g} to {LONGEST_S:g} seconds, not {interval:g}.")
        if pool is not None and what is not None:
            raise RequestError(
                "--pool is for all that runs there: a job has its own pool, leave one of them out."
            )
        of = Shown(None if what is None else terminal.reference(what), pool)
        if json or once or not sys.stdout.isatty():
            found = await _look_twice(client, of, interval)
            if json:
                terminal.write_json(_sorted(found, sort))
            else:
                _print(_sorted(found, sort))
            return terminal.OK
        await _draw(client, of, interval, sort)
        return terminal.OK

    terminal.ask(work)


async def _look(client: Client, of: Shown) -> UsageView:
    from towline.client.usage import usage

    if of.named is None:
        return await usage(client, pool=of.pool)
    return await usage(client, of.named.job, of.named.task, of.named.index)


async def _look_twice(client: Client, of: Shown, interval_s: float) -> UsageView:
    from towline.client.usage import between

    before = await _look(client, of)
    await asyncio.sleep(interval_s)
    return between(before, await _look(client, of))


def _sorted(found: UsageView, sort: str) -> UsageView:
    order = _ORDERS[sort]
    found.elements.sort(key=lambda element: (-order(element), element.name, element.index))
    return found


# --- as text ------------------------------------------------------------------------------------------
def _print(found: UsageView) -> None:
    for line in head(found):
        terminal.write(safe(line))
    if found.elements:
        terminal.write("")
        terminal.table(_HEADER, [row(element) for element in found.elements])


def head(found: UsageView) -> list[str]:
    """What all of it uses, then a line for each of the first nodes."""
    from towline.model.units import human_bytes

    count = len(found.elements)
    cpu = sum(element.cpu or 0.0 for element in found.elements)
    memory = sum(element.memory_bytes or 0 for element in found.elements)
    pids = sum(element.pids or 0 for element in found.elements)
    threads = "1 thread" if pids == 1 else f"{pids} threads"
    lines = [f"{count} running: {cpu:.2f} cores, {human_bytes(memory)}, {threads}"]
    lines += [_node_line(node) for node in found.nodes[:NODES_SHOWN]]
    if len(found.nodes) > NODES_SHOWN:
        lines.append(f"and {len(found.nodes) - NODES_SHOWN} more nodes")
    return lines


def _node_line(node: NodeUsageView) -> str:
    from towline.model.units import human_bytes

    if node.error is not None:
        return f"node {node.name}: {node.error}"
    cpu = "?" if node.cpu is None else f"{node.cpu:.2f}"
    used, whole = human_bytes(node.memory_used_bytes), human_bytes(node.memory_bytes)
    busy = f"{cpu} of {node.cpus} cores busy, load {node.load1:.2f}"
    return f"node {node.name}: {busy}, memory {used} of {whole}"


def row(element: ElementUsageView) -> tuple[str, ...]:
    """The cells of ``_HEADER``."""
    from towline.model.units import human_bytes

    def size(count: int | None) -> str:
        return "-" if count is None else human_bytes(count)

    return (
        element.name,
        "-" if element.cpu is None else f"{element.cpu:.2f}",
        f"{element.cpu_limit:g}",
        size(element.memory_bytes),
        size(element.peak_memory_bytes),
        size(element.memory_limit_bytes or None),
        "-" if element.pids is None else str(element.pids),
        size(element.output_bytes),
        "-" if element.run_seconds is None else length(element.run_seconds),
        element.node,
    )


# --- on a terminal ------------------------------------------------------------------------------------
async def _draw(client: Client, of: Shown, interval_s: float, sort: str) -> None:
    """Until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    from towline.client.usage import between

    console = Console(file=sys.stdout, highlight=False)
    with Live(console=console, auto_refresh=False, transient=False) as live:
        try:
            before = await _look(client, of)
            _show(live, before, sort)
            while True:
                await asyncio.sleep(interval_s)
                after = await _look(client, of)
                _show(live, between(before, after), sort)
                before = after
        except asyncio.CancelledError:
            return  # Ctrl-C is how one ends it


def _show(live: Live, found: UsageView, sort: str) -> None:
    """As much as there is room for: what is higher than the terminal could not be drawn again."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines = [Text(safe(line), overflow="ellipsis", no_wrap=True) for line in head(found)]
    room = max(1, live.console.size.height - len(lines) - 3)
    elements = _sorted(found, sort).elements
    table = Table.grid(padding=(0, 2))
    for name in _HEADER:
        table.add_column(justify="left" if name in ("element", "node") else "right", no_wrap=True)
    table.add_row(*(Text(name.upper(), style="bold") for name in _HEADER))
    for element in elements[:room]:
        table.add_row(*(Text(safe(cell)) for cell in row(element)))
    more = len(elements) - room
    below = [Text(f"… and {more} more", style="dim")] if more > 0 else []
    live.update(Group(*lines, Text(""), table, *below), refresh=True)
