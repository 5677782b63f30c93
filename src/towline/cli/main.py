"""``tow``: the commands, in the order in which help shows them. Each module adds its nouns."""

from __future__ import annotations

import sys

import typer

from towline.cli import (
    doctor,
    files,
    images,
    jobs,
    logs,
    queue,
    run,
    simulate,
    submit,
    vault,
)
from towline.cli.artifacts import command as artifacts
from towline.cli.cluster import access, collecting, context, database, nodes, servers, serving, top
from towline.cli.dev import command as dev
from towline.cli.exec import command as execute
from towline.cli.screen import descriptors, terminal

app = typer.Typer(
    name="tow",
    help="Run containers: one on a laptop, millions on a fleet.\n\nThe first command starts a local "
    "server in the background, under TOWLINE_HOME (~/.towline); it ends by itself when idle.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help and plain errors: they are quick, and the same in a terminal and in a log.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

for module in (
    run,
    submit,
    jobs,
    logs,
    top,
    artifacts,
    execute,
    queue,
    images,
    vault,
    dev,
    serving,
    nodes,
    servers,
    context,
    access,
    collecting,
    database,
    simulate,
    doctor,
    files,
):
    module.add(app)


def main() -> None:
    """The program's entry point."""
    descriptors.prepare()
    try:
        app()
    except (BrokenPipeError, descriptors.Unwritable) as error:  # of help; commands tell theirs
        sys.exit(terminal.unwritten(error))
