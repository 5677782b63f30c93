"""``tow gc``: removing now what the server would remove in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson, OfPool
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client


def add(app: typer.Typer) -> None:
    app.command("gc")(collect)


def collect(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, and how much that frees.")
    ] = False,
    pool: OfPool = None,
    json: AsJson = False,
) -> None:
    """Remove jobs that ended longer ago than they are kept, and output beyond its size.

    The server does so by itself, from time to time: how long and how much is kept are retention_days and
    retention_logs in server.toml. Images of a node are another matter: tow image gc.

    \b
    Examples:
      tow gc --dry-run
      tow gc
    """

    async def work(client: Client) -> int:
        import msgspec

        from towline.model.units import human_bytes
        from towline.model.views import GarbageView

        answer = await client.request("POST", "/v1/gc", query={"pool": pool}, body={"dry_run": dry_run})
        view = msgspec.json.decode(answer, type=GarbageView)
        if json:
            terminal.write_json(view)
            return terminal.OK
        would = "would be " if dry_run else ""
        terminal.write(
            f"{view.jobs} jobs {would}removed, and {human_bytes(view.freed_bytes)} of output {would}freed; "
            f"{human_bytes(view.left_bytes)} stay"
            + (
                f"; of artifacts {human_bytes(view.artifact_bytes)} {would}freed"
                if view.artifact_bytes
                else ""
            )
        )
        return terminal.OK

    terminal.ask(work)
