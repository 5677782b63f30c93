"""``tow servers``: the replicas of the control plane, and who leads what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from towline.cli.arguments import AsJson
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client
    from towline.model.views import PeerView


def add(app: typer.Typer) -> None:
    app.command("servers")(servers)


def servers(json: AsJson = False) -> None:
    """Show the servers of the cluster: which pools each one leads, since when and in which term, when it was
    last heard, and its build.

    Any server may be asked; a * marks the one that has answered. A server that is gone is shown for some
    minutes yet.

    \b
    Examples:
      tow servers
      tow servers --json
    """

    async def work(client: Client) -> int:
        from towline.client.cluster.nodes import servers

        found = await servers(client)
        if json:
            terminal.write_json({"servers": found})
        else:
            terminal.table(
                ["SERVER", "ADDRESS", "STATE", "LEADS", "UP SINCE", "LAG", "BUILD"],
                [_row(one) for one in found],
            )
        return terminal.OK

    terminal.ask(work)


def _row(one: PeerView) -> list[str]:
    leads = ", ".join(f"{led.pool} (term {led.term}, since {led.since})" for led in one.leads)
    return [
        f"{one.name}{'*' if one.asked else ''}",
        one.address or "this machine only",
        "up" if one.live else "silent",
        leads or "-",
        one.started_at,
        f"{one.silent_seconds:.1f} s",
        one.build,
    ]
