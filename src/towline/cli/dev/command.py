"""``tow dev``: a cluster on this machine for as long as the command runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towline.cli.screen import terminal

if TYPE_CHECKING:
    import asyncio

    from towline.cli.dev.cluster import DevCluster

FOLDER, LOCK = "dev", "dev.lock"
MOST_NODES = 64
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add(app: typer.Typer) -> None:
    app.command("dev")(dev)


def dev(
    nodes: Annotated[int, typer.Option(metavar="N", help=f"How many nodes, 1 to {MOST_NODES}.")] = 3,
    context: Annotated[
        str, typer.Option(metavar="NAME", help="The context that is made for it, and removed again.")
    ] = "dev",
    host_network: Annotated[
        bool,
        typer.Option("--host-network", help="Nodes share this machine's network, as they do without root."),
    ] = False,
) -> None:
    """Run a whole cluster on this machine: a server over TLS, and nodes with agents of their own.

    With root each node is in a network namespace, on a bridge that leads to the server and nowhere else:
    images of registries need --host-network then. Each node offers all CPUs of this machine, and its share
    of the memory. What ends by itself is started again. Ctrl-C ends the cluster with all that runs on it;
    its jobs and their output go too. Where it was killed, the next start takes away what it has left.

    \b
    Examples:
      tow dev --nodes 5
      TOWLINE_CONTEXT=dev tow run job.yaml         in another terminal
    """

    def work() -> int:
        import asyncio

        from towline.client.local import home_directory
        from towline.errors import RequestError

        if not 1 <= nodes <= MOST_NODES:
            raise RequestError(f"--nodes is {nodes}: write 1 to {MOST_NODES}.")
        home = home_directory()
        return asyncio.run(_run(home, nodes, context, namespaces=os.geteuid() == 0 and not host_network))

    terminal.end(work)


async def _run(home: Path, nodes: int, context: str, *, namespaces: bool) -> int:
    import asyncio

    from towline.cli.dev.cluster import DevCluster, check_context
    from towline.cli.dev.ending import end_cluster
    from towline.coordination.filelock import FileLease
    from towline.errors import RequestError

    lock, folder = FileLease(home / LOCK), home / FOLDER
    if not lock.try_acquire():
        holder = lock.holder()
        who = f" (process {holder.pid})" if holder is not None else ""
        raise RequestError(f"`tow dev` runs already for {home}{who}: end it, or set another TOWLINE_HOME.")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        if folder.exists():
            terminal.say("Removing what an earlier `tow dev` has left.")
            await end_cluster(folder, hurry=stop)
        check_context(context)
        cluster = DevCluster(folder, nodes, context, terminal.say)
        try:
            return await _until_stopped(cluster, stop, context, namespaces=namespaces)
        finally:
            await _end(folder, stop)
    finally:
        lock.release()


async def _until_stopped(cluster: DevCluster, stop: asyncio.Event, context: str, *, namespaces: bool) -> int:
    """The exit status: 130 where it is ended before it was ready, 0 afterwards."""
    if not await _before(stop, cluster.start(namespaces=namespaces)):
        return terminal.INTERRUPTED
    terminal.say(f"In another terminal: export TOWLINE_CONTEXT={context}. Ctrl-C here ends the cluster.")
    await _before(stop, cluster.keep())
    return terminal.OK


async def _before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do ``work`` unless ``stop`` comes first; returns whether it was done. Raises what it raises."""
    import asyncio

    doing, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not doing.done():
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
    if doing.cancelled():
        return False
    doing.result()
    return True


async def _end(folder: Path, stop: asyncio.Event) -> None:
    """Take everything away. Another Ctrl-C does not wait for the end of its jobs."""
    from towline.cli.dev.ending import end_cluster

    terminal.say("Ending the cluster and what runs on it. Ctrl-C again: at once.")
    stop.clear()
    await end_cluster(folder, hurry=stop)
    terminal.say("The cluster has ended.")
