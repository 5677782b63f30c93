"""``tow``: the commands, in the order in which help shows them. Each module adds its nouns.

Only the module of the command that was called is loaded, since every command would pay for all others; for
help, completion and a word that is no command, all are.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module

import typer

from towline.cli.screen import descriptors, terminal

COMMANDS = {
    "run": ("run",),
    "submit": ("submit", "wait", "attach"),
    "jobs": ("jobs", "job", "tasks", "why", "cancel", "retry"),
    "logs": ("logs",),
    "cluster.top": ("top",),
    "artifacts.command": ("artifacts",),
    "exec.command": ("exec",),
    "queue": ("queue", "priority", "plan"),
    "images": ("image",),
    "vault": ("secret", "registry"),
    "dev.command": ("dev",),
    "cluster.serving": ("server", "agent"),
    "cluster.nodes": ("node", "drain", "undrain"),
    "cluster.servers": ("servers",),
    "cluster.pools": ("pool",),
    "cluster.context": ("context",),
    "cluster.access": ("token", "whoami", "audit"),
    "cluster.collecting": ("gc",),
    "cluster.database": ("db", "backup", "restore"),
    "simulate": ("simulate", "events"),
    "doctor": ("doctor", "nodes", "version", "stop"),
    "files": ("schema", "init"),
}
"""The module of each command, below this package."""


@cache
def commands(word: str | None = None) -> typer.Typer:
    """The program with the commands of the module that has ``word``; all of them where none has."""
    program = typer.Typer(
        name="tow",
        help="Run containers: one on a laptop, millions on a fleet.\n\nThe first command starts a local "
        "server in the background, under TOWLINE_HOME (~/.towline); it ends by itself when idle.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        # Plain help and plain errors: they are quick, and the same in a terminal and in a log.
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    program.callback()(_nothing)  # a program of one command would take no command's name
    wanted = [module for module, names in COMMANDS.items() if word in names]
    for module in wanted or COMMANDS:
        import_module(f"towline.cli.{module}").add(program)
    return program


def _nothing() -> None:
    return None


def main() -> None:
    """The program's entry point."""
    descriptors.prepare()
    try:
        commands(sys.argv[1] if len(sys.argv) > 1 else None)()
    except (BrokenPipeError, descriptors.Unwritable) as error:  # of help; commands tell theirs
        sys.exit(terminal.unwritten(error))
