"""``tow run``: submit a job, show how it goes, and end with its truth."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from towline.cli.arguments import AsJson, IntoPool, Params, into_pool, overrides
from towline.cli.screen import terminal
from towline.cli.submit import run_and_copy, run_and_watch

if TYPE_CHECKING:
    from towline.client import Client, Submission

TASK_NAME = "main"

AFTER_DASHES = "towline.after_dashes"
_FILE_ENDINGS = (".yaml", ".yml", ".json")
_OPTIONS = {
    "cpu": "--cpu", "memory": "--memory", "mounts": "--mount", "env": "--env", "timeout": "--timeout",
    "runtime": "--runtime", "name": "--name", "pool": "--pool", "image": "IMAGE", "command": "COMMAND",
}  # fmt: skip
"""By the fields of a job file that they stand for."""
_FIRST_NAME = re.compile(r"[a-z]+")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")

Target = Annotated[
    str | None,
    typer.Argument(metavar="FILE | IMAGE", help="A job file, or an image for the command after --."),
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="The job's name.")]
Cpu = Annotated[str | None, typer.Option("--cpu", metavar="CPUS", help="Such as 0.5 (default: 1).")]
Memory = Annotated[
    str | None, typer.Option("--memory", metavar="SIZE", help="Such as 64Mi (default: 512Mi).")
]
Timeout = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="Such as 90s or 2m (default: none).")
]
Mounts = Annotated[
    list[str] | None,
    typer.Option("--mount", metavar="SRC:DST[:ro]", help="Show a folder in the container."),
]
Variables = Annotated[
    list[str] | None,
    typer.Option("--env", "-e", metavar="NAME[=VALUE]", help="Set a variable, or pass on one of yours."),
]
Runtime = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="RUNTIME",
        help="oci, docker (by Docker or Podman), or process: no image and no isolation (default: oci).",
    ),
]


class CommandAfterDashes(TyperCommand):
    """Sets aside what stands after ``--`` before anything is parsed: it belongs to the container."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[AFTER_DASHES] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


def add(app: typer.Typer) -> None:
    app.command("run", cls=CommandAfterDashes)(run)


def run(
    ctx: typer.Context,
    target: Target = None,
    param: Params = None,
    name: Name = None,
    cpu: Cpu = None,
    memory: Memory = None,
    mount: Mounts = None,
    env: Variables = None,
    timeout: Timeout = None,
    runtime: Runtime = None,
    pool: IntoPool = None,
    json: AsJson = False,
) -> None:
    """Run a job file, or one command in an image, and wait for its end.

    The exit status is 0 only if the job has succeeded; 1: it failed or was cancelled, 2: refused
    input, 3: no server, 130: interrupted. Ctrl-C cancels the job and waits for its end, a second
    one kills it. Where the terminal is lost, the job goes on (see tow attach).

    \b
    Examples:
      tow run job.yaml -p year=2014
      tow run oci:./images/busybox:1.36 -- echo hello
      tow run oci:./images/busybox:1.36 --cpu 0.5 --mount ./data:/data:ro -- ls /data
      tow run --runtime process -- make test
      tow run job.yaml --pool gpu
    """
    command: list[str] | None = ctx.meta.get(AFTER_DASHES)
    settings = {"cpu": cpu, "memory": memory, "mount": mount, "env": env, "timeout": timeout}
    settings |= {"runtime": runtime, "name": name}

    def work() -> int | None:
        # Everything that can be wrong is found before a server is started.
        if is_file(target, command):
            submission = into_pool(_of_file(str(target), settings, param), pool)
            return terminal.served(lambda client: run_and_watch(client, submission, json))
        with _by_options():
            submission = into_pool(_of_command(target, command, settings, param), pool)
            return terminal.served(lambda client: _run_command(client, submission, json))

    terminal.end(work)


async def _run_command(client: Client, submission: Submission, json: bool) -> int:
    run_it = run_and_watch if json else run_and_copy
    return await run_it(client, submission, json)


def is_file(target: str | None, command: list[str] | None) -> bool:
    """Whether the argument means a job file. Raises RequestError where it can be neither."""
    from towline.errors import RequestError

    if target is None:
        if command is None:
            raise RequestError(
                "Name a job file, as in: tow run job.yaml; or a command behind --, as in: "
                "tow run busybox:1.36 -- echo hello, or: tow run --runtime process -- echo hello"
            )
        return False
    if target.startswith("oci:"):
        return False
    if command is not None:
        if target.endswith(_FILE_ENDINGS):
            raise RequestError(
                f"{terminal.safe(target)} is a job file, which has its commands in it: leave out `--` and "
                "what follows it. A command of its own needs an image there, such as oci:./busybox:1.36."
            )
        return False
    if target.endswith(_FILE_ENDINGS) or Path(target).exists():
        return True
    shown = terminal.safe(target)
    raise RequestError(
        f"{shown!r} is no file here, and an image needs a command: tow run {shown} -- COMMAND. "
        "`tow init` writes an example of a job file."
    )


def _of_file(path: str, settings: dict[str, Any], param: list[str] | None) -> Submission:
    from towline.client import Submission
    from towline.errors import RequestError

    given = [f"--{name}" for name, value in settings.items() if value]
    if given:
        many = len(given) > 1
        raise RequestError(
            f"{', '.join(given)} {'are' if many else 'is'} for a command behind --; of a job file, write "
            f"{'them' if many else 'it'} into {path}."
        )
    return Submission.of_file(path, overrides(param))


def _of_command(
    image: str | None, command: list[str] | None, settings: dict[str, Any], param: list[str] | None
) -> Submission:
    from towline.client import Submission
    from towline.errors import RequestError
    from towline.model.template import escape

    if param:
        raise RequestError("-p overrides a parameter of a job file, and there is none here.")
    task: dict[str, Any] = {"image": image, "runtime": settings["runtime"], "timeout": settings["timeout"]}
    task["command"] = [escape(word) for word in command] if command else None
    task["resources"] = _given({"cpu": settings["cpu"], "memory": settings["memory"]}) or None
    task["mounts"] = [_mount(text) for text in settings["mount"] or []] or None
    task["env"] = dict(_variable(text) for text in settings["env"] or []) or None
    name = settings["name"] or _name(command, image)
    return Submission.of_tree({"name": name, "tasks": {TASK_NAME: _given(task)}})


@contextmanager
def _by_options() -> Iterator[None]:
    """What is wrong is named as it was given on the command line, where there is no job file."""
    from towline.errors import InvalidDocument, Problem

    try:
        yield
    except InvalidDocument as error:
        raise InvalidDocument(
            [Problem(_option(one.where), one.message, one.remedy) for one in error.problems]
        ) from None


def _option(where: str) -> str:
    """``--cpu`` for ``tasks.main.resources.cpu``; what no option gives stays as it is."""
    field = where.removeprefix(f"tasks.{TASK_NAME}.").removeprefix("resources.")
    name = _FIRST_NAME.match(field)
    return _OPTIONS.get(name[0] if name else field, where)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _name(command: list[str] | None, image: str | None) -> str:
    """A name for a job that was given none: that of its program, else of its image."""
    word = command[0] if command else (image or "").removeprefix("oci:").partition(":")[0]
    name = _NOT_IN_A_NAME.sub("-", os.path.basename(word.rstrip("/"))).lstrip("_.-")  # noqa: PTH119 - a text, and maybe no path
    return name[:63] or "run"


def _mount(text: str) -> dict[str, Any]:
    from towline.errors import RequestError

    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target or mode not in ("", "ro", "rw"):
        raise RequestError(
            f"--mount {terminal.safe(text)!r} is not SRC:DST or SRC:DST:ro, such as ./data:/data:ro"
        )
    return {"source": source, "target": target, "readonly": mode == "ro"}


def _variable(text: str) -> tuple[str, str]:
    from towline.errors import RequestError
    from towline.model.template import escape

    name, equals, value = text.partition("=")
    if not name or (not equals and name not in os.environ):
        raise RequestError(
            f"--env {terminal.safe(text)!r} is not NAME=VALUE, nor a variable that is set here."
        )
    return name, escape(value if equals else os.environ[name])
