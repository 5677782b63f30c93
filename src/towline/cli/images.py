"""``tow image``: the images that the node has, and room for more."""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson, AtPool
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client
    from towline.client.images import Images
    from towline.model.views import ImagesFreedView, ImageView

image = typer.Typer(help="Images: pull them ahead, see what they take, make room.", no_args_is_help=True)

Ref = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE", help="As in a job file: busybox:1.36, ghcr.io/org/app:1.2, oci:PATH:TAG."
    ),
]
Named = Annotated[
    str, typer.Argument(metavar="IMAGE", help="An image's name, or (the beginning of) its digest.")
]
NodeName = Annotated[
    str | None, typer.Option("--node", help="On this node. [default: the only one of the pool]")
]


def add(app: typer.Typer) -> None:
    image.command("ls")(ls)
    image.command("pull")(pull)
    image.command("rm")(remove)
    image.command("gc")(collect)
    app.add_typer(image, name="image")


def _images(client: Client, node: str | None, pool: str | None) -> Images:
    from towline.client.images import Images

    return Images(client, node, pool)


def ls(node: NodeName = None, pool: AtPool = None, json: AsJson = False) -> None:
    """List the node's images with what they take, the latest used first.

    \b
    Examples:
      tow image ls
      tow image ls --json | jq '.images[].names'
    """

    async def work(client: Client) -> int:
        found = await _images(client, node, pool).list()
        if json:
            terminal.write_json({"images": found})
            return terminal.OK
        header = ("image", "digest", "unpacked", "copies", "used", "attempts")
        terminal.table(header, [_row(view) for view in found])
        return terminal.OK

    terminal.ask(work)


def _row(view: ImageView) -> tuple[object, ...]:
    from towline.model.units import human_bytes

    name = view.names[0] if view.names else None
    more = f" (+{len(view.names) - 1})" if len(view.names) > 1 else ""
    if view.progress is not None:
        return (name, None, view.progress, None, None, None)
    return (
        None if name is None else name + more,
        view.digest[:19],
        human_bytes(view.unpacked_bytes),
        human_bytes(view.compressed_bytes),
        None if view.used_at is None else _short(view.used_at),
        view.attempts,
    )


def _short(at: str) -> str:
    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def pull(reference: Ref, node: NodeName = None, pool: AtPool = None, json: AsJson = False) -> None:
    """Have an image on the node before a job needs it. A name gets what it stands for now.

    \b
    Examples:
      tow image pull busybox:1.36
      tow image pull localhost:5000/team/app:1.2
    """

    async def work(client: Client) -> int:
        from pathlib import Path

        shown = ""
        async with aclosing(_images(client, node, pool).pull(reference, Path.cwd())) as views:
            async for view in views:
                if view.image is not None:
                    _tell_pulled(view.image, json)
                    return terminal.OK
                if view.progress and view.progress != shown and not json:
                    shown = view.progress
                    terminal.say(terminal.safe(shown))
        terminal.say("error: the server ended before the image was there: repeat the command")
        return terminal.NO_SERVER

    terminal.ask(work)


def _tell_pulled(view: ImageView, json: bool) -> None:
    from towline.model.units import human_bytes

    if json:
        terminal.write_json(view)
    else:
        terminal.write(terminal.safe(f"{view.names[0] if view.names else ''} {view.digest}".strip()))
        terminal.say(f"{human_bytes(view.unpacked_bytes)} unpacked")


def remove(reference: Named, node: NodeName = None, pool: AtPool = None, json: AsJson = False) -> None:
    """Remove an image that nothing uses.

    \b
    Examples:
      tow image rm busybox:1.36
      tow image rm 3ddc92849f42
    """

    async def work(client: Client) -> int:
        from pathlib import Path

        _tell_freed(await _images(client, node, pool).remove(reference, Path.cwd()), json, "freed")
        return terminal.OK

    terminal.ask(work)


def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all that is not in use, not only what is over the budget.")
    ] = False,
    node: NodeName = None,
    pool: AtPool = None,
    json: AsJson = False,
) -> None:
    """Remove the least recently used images, until the rest is below images.max_bytes; never one in use.

    \b
    Examples:
      tow image gc --dry-run
      tow image gc --all
    """

    async def work(client: Client) -> int:
        done = await _images(client, node, pool).collect(dry_run=dry_run, everything=everything)
        _tell_freed(done, json, "would be freed" if dry_run else "freed")
        return terminal.OK

    terminal.ask(work)


def _tell_freed(done: ImagesFreedView, json: bool, verb: str) -> None:
    from towline.model.units import human_bytes

    if json:
        terminal.write_json(done)
        return
    for name in done.removed:
        terminal.write(terminal.safe(name))
    terminal.say(f"{human_bytes(done.freed_bytes)} {verb}, {human_bytes(done.left_bytes)} of images left")
