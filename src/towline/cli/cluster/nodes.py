"""``tow node``, ``tow drain`` and ``tow undrain``: looking at a machine, and taking it out of service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson, OfPool
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client
    from towline.client.cluster.nodes import Nodes
    from towline.model.views import NodeView

Node = Annotated[str, typer.Argument(metavar="NODE", help="A node's name, or its id.")]
_LOOK_EVERY_S = 1.0


def add(app: typer.Typer) -> None:
    app.command("node")(node)
    app.command("drain")(drain)
    app.command("undrain")(undrain)


def _nodes(client: Client, pool: str | None) -> Nodes:
    from towline.client.cluster.nodes import Nodes

    return Nodes(client, pool)


def node(
    words: Annotated[
        list[str], typer.Argument(metavar="[forget] NODE", help="A node's name or id, after forget or alone.")
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Forget it although it is connected: it is cut off at once.")
    ] = False,
    pool: OfPool = None,
    json: AsJson = False,
) -> None:
    """Show one node; or forget one that will not come back.

    Forgetting takes back its certificate, and gives up what it had: lost attempts are tried again elsewhere,
    also those of tasks with on_disconnect: wait. It is refused while the node is connected, unless forced:
    for a machine that is in the wrong hands. Nobody stops what runs there.

    \b
    Examples:
      tow node n7
      tow node forget n7
      tow node forget n7 --force
    """

    async def work(client: Client) -> int:
        from towline.errors import RequestError

        if len(words) == 2 and words[0] == "forget":
            await _nodes(client, pool).forget(words[1], force)
            terminal.say(f"Forgot {words[1]}.")
            return terminal.OK
        if len(words) != 1 or force:
            raise RequestError("Give one node, as in: tow node n7, or: tow node forget n7")
        view = await _nodes(client, pool).get(words[0])
        if json:
            terminal.write_json(view)
        else:
            _show(view)
        return terminal.OK

    terminal.ask(work)


def _show(view: NodeView) -> None:
    from towline.model.units import human_bytes

    known = view.runtimes.items()
    runtimes = [name if problem is None else f"no {name}: {problem}" for name, problem in known]
    lines: list[tuple[str, str | None]] = [
        ("name", view.name),
        ("id", view.id),
        ("pool", view.pool),
        ("state", view.state),
        ("draining since", view.drain_at),
        ("moves what runs at", view.drain_until),
        ("attempts", str(view.active)),
        ("cpu", f"{view.cpu_free:g} of {view.cpu:g} free"),
        ("memory", f"{human_bytes(view.memory_free_bytes)} of {human_bytes(view.memory_bytes)} free"),
        ("disk", human_bytes(view.disk_bytes) if view.disk_bytes else None),
        ("labels", " ".join(f"{name}={value}" for name, value in view.labels.items()) or None),
        ("taints", " ".join(view.taints) or None),
        ("runtimes", "; ".join(runtimes)),
        *((f"{name} protects", ", ".join(what) or "nothing") for name, what in view.protects.items()),
    ]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        if text is not None:
            terminal.write(terminal.safe(f"{name:<{width}}  {text}"))


def drain(
    which: Node,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Such as 30m: what still runs then is stopped and queued again."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return once nothing runs there any more.")] = False,
    pool: OfPool = None,
    json: AsJson = False,
) -> None:
    """Let a node take nothing new: for an upgrade, or before it goes away.

    What runs there ends by itself; with a deadline it is moved then, which costs it no retry. It lasts until
    tow undrain, also over restarts of the node and of the server.

    \b
    Examples:
      tow drain n7
      tow drain n7 --deadline 30m --wait
    """

    async def work(client: Client) -> int:
        view = await _nodes(client, pool).drain(which, deadline)
        if wait:
            view = await _until_empty(_nodes(client, view.pool), view)
        if json:
            terminal.write_json(view)
            return terminal.OK
        until = f"; what still runs is moved at {view.drain_until}" if view.drain_until else ""
        terminal.say(f"{view.name} takes nothing new{until}. It has {view.active} attempts.")
        return terminal.OK

    terminal.ask(work)


async def _until_empty(nodes: Nodes, view: NodeView) -> NodeView:
    import asyncio

    told_s = 0.0
    while view.active:
        if time.monotonic() - told_s > 10:
            terminal.say(f"{view.name} has {view.active} attempts.")
            told_s = time.monotonic()
        await asyncio.sleep(_LOOK_EVERY_S)
        view = await nodes.get(view.id)
    return view


def undrain(which: Node, pool: OfPool = None, json: AsJson = False) -> None:
    """Let a drained node take work again.

    \b
    Examples:
      tow undrain n7
    """

    async def work(client: Client) -> int:
        view = await _nodes(client, pool).undrain(which)
        if json:
            terminal.write_json(view)
        else:
            terminal.say(f"{view.name} takes work.")
        return terminal.OK

    terminal.ask(work)
