"""``tow exec``: its arguments, which element is meant, and the status that it ends with."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towline.cli.arguments import What
from towline.cli.run import AFTER_DASHES, CommandAfterDashes, Variables
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client, Job
    from towline.client.exec import Exec

_SHOWN = 10
_SIGNALLED = 128


class _Command(CommandAfterDashes):
    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", "JOB[/TASK[.INDEX]]", "-- COMMAND..."]


def add(app: typer.Typer) -> None:
    app.command("exec", cls=_Command, context_settings={"ignore_unknown_options": True})(execute)


def execute(
    ctx: typer.Context,
    what: What,
    rest: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    stdin: Annotated[
        bool,
        typer.Option(
            "-i/-n", "--stdin/--no-stdin", help="Whether it reads our stdin (it does).", show_default=False
        ),
    ] = True,
    tty: Annotated[
        bool | None,
        typer.Option(
            "-t/-T",
            "--tty/--no-tty",
            help="Whether it has a terminal (as far as stdin and stdout are one).",
            show_default=False,
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option("--user", "-u", metavar="USER[:GROUP]", help="As whom (the container's own user)."),
    ] = None,
    workdir: Annotated[
        str | None, typer.Option("--workdir", "-w", metavar="DIR", help="Where (the container's own).")
    ] = None,
    env: Variables = None,
) -> None:
    """Run a command inside a running element: a shell, a debugger, a look around.

    It sees what the element's own process sees, with the same limits and no more rights. Where one
    element runs, JOB is enough. With a terminal every key goes inside, Ctrl-C too; without one,
    stdout and stderr stay apart, and Ctrl-C interrupts the command (a second one leaves it).

    The exit status is the command's (128+N where signal N killed it); 126 or 127: it could not be
    started, 2: refused, or the element does not run, 3: the connection was lost. What still runs
    of it when it ends, or when tow does, is killed.

    \b
    Examples:
      tow exec flights/count.3 -- sh
      tow exec flights/count.3 -- ps aux
      echo 1 | tow exec flights -- sh -c 'cat > /tmp/go'
      tow exec flights/count.3 --user root --workdir / -- du -sh tmp
    """
    command: list[str] | None = ctx.meta.get(AFTER_DASHES)

    async def work(client: Client) -> int:
        from towline.client.exec import CannotStart

        try:
            return await _run(client, what, command or [], _options(user, workdir, env), stdin, tty)
        except CannotStart as error:
            terminal.say(terminal.safe(f"error: {error}"))
            return error.status

    def served() -> int | None:
        # Everything that can be wrong is found before a server is started.
        _check(command, rest or [])
        terminal.reference(what)
        _options(user, workdir, env)
        return terminal.served(work)

    terminal.end(served)


def _check(command: list[str] | None, rest: list[str]) -> None:
    """``rest`` is what stands before the dashes and is nothing that we know."""
    from towline.errors import RequestError

    if rest and rest[0].startswith("-"):
        raise RequestError(f"tow exec has no option {terminal.safe(rest[0])}: see tow exec --help")
    if rest:
        raise RequestError(f"Put -- before the command: tow exec JOB/TASK.INDEX -- {terminal.safe(rest[0])}")
    if not command:
        raise RequestError("Say after -- what to run: tow exec JOB/TASK.INDEX -- sh")
    if not command[0]:
        raise RequestError("The command's first word, its program, is empty.")
    _check_text("the command", *command)


def _options(user: str | None, workdir: str | None, env: list[str] | None) -> dict[str, Any]:
    from towline.errors import RequestError

    for name, value in (("--user", user), ("--workdir", workdir)):
        if value == "":
            raise RequestError(f"{name} is empty: leave it out, or give one.")
    variables = dict(map(_variable, env or []))
    _check_text("--user or --workdir", user or "", workdir or "")
    _check_text("--env", *variables, *variables.values())
    return {"user": user, "workdir": workdir, "env": variables}


def _check_text(where: str, *words: str) -> None:
    from towline.errors import RequestError

    try:
        "".join(words).encode()
    except UnicodeEncodeError:
        raise RequestError(f"In {where} are bytes that are no UTF-8 text: pass them on by stdin.") from None


def _variable(text: str) -> tuple[str, str]:
    from towline.errors import RequestError
    from towline.model.names import ENV_NAME, ENV_NAME_RULE

    name, equals, value = text.partition("=")
    if not name or (not equals and name not in os.environ):
        raise RequestError(
            f"--env {terminal.safe(text)!r} is not NAME=VALUE, nor a variable that is set here."
        )
    if not ENV_NAME.match(name):
        raise RequestError(f"--env {terminal.safe(name)!r}: {ENV_NAME_RULE}.")
    return name, value if equals else os.environ[name]


async def _run(
    client: Client, what: str, command: list[str], options: dict[str, Any], stdin: bool, tty: bool | None
) -> int:
    from towline.cli.exec.passing import Left, Passing
    from towline.cli.exec.terminal import RawTerminal, size

    named = terminal.reference(what)
    job = await client.job(named.job)
    task, index = await choose(job, named)
    with_terminal = os.isatty(0) and os.isatty(1) if tty is None else tty
    if with_terminal:
        options["env"] = {"TERM": os.environ.get("TERM") or "xterm", **options["env"]}
        options["terminal"] = size()
    async with job.exec(task, index, command, **options) as running:
        raw = RawTerminal(0) if with_terminal else None
        sys.stdout.flush()
        try:
            if raw is None:
                await Passing(running, None, stdin).run()
            else:
                with raw:
                    await Passing(running, raw, stdin).run()
        except Left as left:
            return _SIGNALLED + left.number
        return _status(running, f"{job.name}/{task}.{index}")


def _status(running: Exec, element: str) -> int:
    ended = running.ended
    assert ended is not None
    if ended.message:
        terminal.say(terminal.safe(ended.message))
    if ended.attempt_ended:
        terminal.say(terminal.safe(f"error: {element} has ended, and the command in it with it."))
    if ended.signal is not None:
        return _SIGNALLED + ended.signal
    return ended.code if ended.code is not None else _SIGNALLED + signal.SIGKILL


# --- which element ---------------------------------------------------------------------------------------


async def choose(job: Job, named: terminal.Reference) -> tuple[str, int]:
    """(task, index) of the element that is meant: the only one, or the only one that runs. Raises
    RequestError with a list where several do."""
    from towline.errors import NotFound, RequestError

    if named.task is not None and named.index is not None:
        return named.task, named.index
    tasks = [task for task in job.submitted.tasks if named.task in (None, task.name)]
    if not tasks:
        names = ", ".join(task.name for task in job.submitted.tasks[:_SHOWN])
        raise NotFound(f"Job {job.name} has no task {named.task!r}: its tasks are {names}.")
    if len(tasks) == 1 and tasks[0].size == 1:
        return await job.only_element(tasks[0].name)
    running = await _running(job, [task.name for task in tasks])
    if len(running) == 1:
        return running[0]
    whole = job.name if named.task is None else f"{job.name}/{named.task}"
    if not running:
        counts = job.submitted.counts if named.task is None else tasks[0].counts
        raise RequestError(f"No element of {whole} runs: {terminal.counted(counts)}.")
    shown = [f"  {job.name}/{task}.{index}" for task, index in running[:_SHOWN]]
    more = ["  …"] if len(running) > _SHOWN else []
    raise RequestError("\n".join([f"Several elements of {whole} run; say which:", *shown, *more]))


async def _running(job: Job, tasks: list[str]) -> list[tuple[str, int]]:
    """One more than are shown, at most."""
    found: list[tuple[str, int]] = []
    for task in tasks:
        async with aclosing(job.elements(task, state="active")) as elements:
            async for element in elements:
                if element.attempts and element.attempts[-1].state == "running":
                    found.append((task, element.index))
                if len(found) > _SHOWN:
                    return found
    return found
