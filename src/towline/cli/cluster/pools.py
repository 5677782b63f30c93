"""``tow pool``: sets of nodes, each with a queue order and a leader of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client
    from towline.client.cluster.pools import Pools
    from towline.model.views import PoolView

pool = typer.Typer(help="Pools: sets of nodes, each with its own queues and leader.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="POOL", help="A pool's name.")]
_HEADER = ("pool", "leader", "term", "nodes", "cpu free", "memory free", "gpus", "jobs", "active", "queued")


def add(app: typer.Typer) -> None:
    pool.command("ls")(ls)
    pool.command("list", hidden=True)(ls)
    pool.command("show")(show)
    pool.command("create")(create)
    app.add_typer(pool, name="pool")


def _pools(client: Client) -> Pools:
    from towline.client.cluster.pools import Pools

    return Pools(client)


def ls(json: AsJson = False) -> None:
    """List all pools: who leads each one, what its nodes have, and how much work it has.

    Of a pool whose leader does not answer only what others know of it is shown.

    \b
    Examples:
      tow pool ls
      tow pool ls --json | jq '.pools[] | {pool, queued}'
    """

    async def work(client: Client) -> int:
        found = await client.pools()
        if json:
            terminal.write_json({"pools": found})
        else:
            terminal.table(_HEADER, [_row(view) for view in found])
        return terminal.OK

    terminal.ask(work)


def show(name: Name, json: AsJson = False) -> None:
    """Show one pool.

    \b
    Example:
      tow pool show gpu
    """

    async def work(client: Client) -> int:
        _tell(await _pools(client).get(name), json)
        return terminal.OK

    terminal.ask(work)


def create(name: Name, json: AsJson = False) -> None:
    """Make a pool. Machines become nodes of it by join links for it.

    \b
    Examples:
      tow pool create gpu
      tow token create --join --pool gpu
      tow run job.yaml --pool gpu
    """

    async def work(client: Client) -> int:
        view = await _pools(client).create(name)
        if json:
            terminal.write_json(view)
        else:
            terminal.say(
                f"Made the pool {view.pool}. A link for a machine that is to be a node of it: "
                f"tow token create --join --pool {view.pool}"
            )
        return terminal.OK

    terminal.ask(work)


def _row(view: PoolView) -> tuple[object, ...]:
    return (
        view.pool,
        view.leader,
        view.term,
        view.nodes,
        _cpu(view),
        _memory(view),
        view.gpus,
        view.jobs,
        view.active,
        view.queued,
    )


def _cpu(view: PoolView) -> str | None:
    return None if view.cpu is None or view.cpu_free is None else f"{view.cpu_free:g}/{view.cpu:g}"


def _memory(view: PoolView) -> str | None:
    from towline.model.units import human_bytes

    if view.memory_bytes is None or view.memory_free_bytes is None:
        return None
    return f"{human_bytes(view.memory_free_bytes)}/{human_bytes(view.memory_bytes)}"


def _tell(view: PoolView, json: bool) -> None:
    if json:
        terminal.write_json(view)
        return
    facts = [
        ("pool", view.pool),
        ("leader", view.leader),
        ("address", view.address),
        ("term", view.term),
        ("since", view.since),
        ("nodes", view.nodes),
        ("cpu free", _cpu(view)),
        ("memory free", _memory(view)),
        ("gpus", view.gpus),
        ("jobs", view.jobs),
        ("active", view.active),
        ("queued", view.queued),
    ]
    terminal.facts([(name, "-" if value is None else value) for name, value in facts])
