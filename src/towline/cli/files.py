"""``tow schema`` and ``tow init``: what may stand in a job file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client


def add(app: typer.Typer) -> None:
    app.command("schema")(schema)
    app.command("init")(init)


def schema(
    api: Annotated[
        bool, typer.Option("--api", help="The OpenAPI document of the server's HTTP API instead.")
    ] = False,
    json: AsJson = True,
) -> None:
    """Print the JSON Schema of job files, for editors and checkers.

    \b
    Examples:
      tow schema > job.schema.json
      tow schema --api > openapi.json
    """
    from towline.model.schema import json_schema

    if api:
        terminal.ask(_show_api)
    terminal.end(lambda: terminal.write_json(json_schema()))


async def _show_api(client: Client) -> int:
    terminal.write_json(await client.api())
    return terminal.OK


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path("job.yaml"),
    json: AsJson = False,
) -> None:
    """Write a commented example of a job file.

    A file that exists is left alone.

    \b
    Examples:
      tow init
      tow init nightly.yaml
    """

    def work() -> int:
        from towline.errors import RequestError
        from towline.model.example import EXAMPLE

        try:
            with file.open("x", encoding="utf-8") as opened:
                opened.write(EXAMPLE)
        except FileExistsError:
            raise RequestError(
                f"{file} exists already: name another file, such as tow init new.yaml"
            ) from None
        except OSError as error:
            raise RequestError(f"{file} cannot be written: {error.strerror}.") from None
        if json:
            terminal.write_json({"file": str(file.absolute())})
        else:
            terminal.say(f"Wrote {file}. Run it with: tow run {file}")
        return terminal.OK

    terminal.end(work)
