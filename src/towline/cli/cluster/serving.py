"""``tow server`` and ``tow agent``: a cluster's control plane, and its nodes. Both run in the foreground."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from towline.cli.screen import terminal

JOIN_VARIABLE = "TOWLINE_JOIN"
AGENT_HOME = "agent"
"""The agent's folder below TOWLINE_HOME: the local mode's own agent has another one."""


def add(app: typer.Typer) -> None:
    app.command("server")(server)
    app.command("agent")(agent)


def server(
    listen: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where others reach it. [default: 0.0.0.0:7443]"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings (TOML), in place of server.toml in TOWLINE_HOME."),
    ] = None,
    store_wait: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long to wait for a database that is away. [default: 60s]"),
    ] = None,
    with_agent: Annotated[
        bool, typer.Option("--with-agent", help="This machine is a node too, without joining.")
    ] = False,
) -> None:
    """Run the server of a cluster, which other machines reach over TLS.

    Its store and the cluster's certificate authority are in TOWLINE_HOME. On this machine every tow command
    of the same user and TOWLINE_HOME is an admin; others need a token. A server that runs for this machine
    alone is stopped first; its jobs go on. Ctrl-C ends the server, and no container.

    \b
    Examples:
      tow server
      tow token create --join          a link that makes a machine a node
      tow token create ada --role submitter
    """

    def work() -> int:
        from towline.server.settings import read_settings

        # What is wrong is told before anything is stopped, and before the home is a cluster's.
        home = _home()
        given = listen or read_settings(home, os.environ, file=config).listen
        where = given or "0.0.0.0:7443"
        read_settings(home, os.environ, {"listen": where, "store_wait": store_wait}, config)
        _try_port(where)
        _stop_local(home)
        extra = ["--listen", where] if listen or not given else []
        if config is not None:
            extra += ["--config", os.fspath(config.resolve())]
        if store_wait is not None:
            extra += ["--store-wait", store_wait]
        if not with_agent:
            extra.append("--without-agent")
        _mark(home)
        terminal.say(f"Starting on {where} (TLS), home {home}. Make nodes with: tow token create --join")
        _replace("server", home, extra)

    terminal.end(work)


def _try_port(where: str) -> None:
    """Raises RequestError where nobody can listen there: then nothing is stopped for it."""
    from towline.errors import OperatorError, RequestError
    from towline.server.process.home import bind_port
    from towline.server.settings import host_and_port

    try:
        bind_port(*host_and_port(where, "listen")).close()
    except (ValueError, OperatorError) as error:
        raise RequestError(str(error)) from None


def _mark(home: Path) -> None:
    """From now on no command starts a server for this machine alone in this home."""
    from towline.client.local import CLUSTER
    from towline.errors import RequestError

    try:
        (home / CLUSTER).write_text("Served by `tow server`. Remove this file to go back to local mode.\n")
    except OSError as error:
        raise RequestError(f"TOWLINE_HOME {home} cannot be written: {error.strerror}.") from None


def _home() -> Path:
    from towline.client.local import home_directory

    return home_directory()


def _stop_local(home: Path) -> None:
    """End a server that runs for this machine alone. Raises RequestError where it is a cluster's."""
    import asyncio

    from towline.client import Client
    from towline.client.local import LocalServer
    from towline.errors import RequestError

    async def stop() -> None:
        local = LocalServer(home)
        if await local.status() is None:
            return
        async with Client(local.socket, patience_s=0) as client:
            if not (await client.server()).local:
                raise RequestError(f"A server of {home} runs already: stop it, or set another TOWLINE_HOME.")
            await client.stop_server()
        await local.gone()

    asyncio.run(stop())


def agent(
    join: Annotated[
        str | None,
        typer.Option(
            metavar="LINK",
            envvar=JOIN_VARIABLE,
            help="What `tow token create --join` has printed, in quotes. Needed the first time only.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The node's name. [default: the host's name]")
    ] = None,
) -> None:
    """Make this machine a node of a cluster, and run its agent.

    The first time, the link enrols it: the machine gets a certificate of its own, which renews itself.
    Afterwards `tow agent` is enough. Its files are below TOWLINE_HOME/agent, with its settings in agent.toml
    there. Ctrl-C ends the agent; containers go on, and the next agent takes them over.

    \b
    Examples:
      tow agent --join 'tow://tow.lan:7443?token=tow_…&ca=sha256:…'
      tow agent
    """

    def work() -> int:
        from towline.errors import RequestError

        home = _home() / AGENT_HOME
        extra: list[str] = []
        os.environ.pop(JOIN_VARIABLE, None)  # it is a secret, and what the agent starts inherits all this
        if join:
            from towline.identity.joining import parse_join

            extra = ["--join-from", str(_in_memory(str(parse_join(join))))]
        elif not (home / "node" / "membership").is_dir():
            raise RequestError(
                "This machine is no node yet: give the link that `tow token create --join` prints on the "
                "server, as in: tow agent --join 'tow://…'"
            )
        if name:
            os.environ["TOWLINE_NODE_NAME"] = name
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace("agent", home, extra)

    terminal.end(work)


def _in_memory(text: str) -> int:
    """A descriptor that the process which we become reads it from: neither its arguments nor its variables
    are for secrets."""
    descriptor = os.memfd_create("join", 0)
    os.write(descriptor, text.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _replace(what: str, home: Path, extra: list[str]) -> NoReturn:
    """Become the process: signals and the exit status are its own."""
    sys.stdout.flush()
    argv = [sys.executable, "-P", "-m", "towline.launch", what, "--home", os.fspath(home), *extra]
    os.execv(sys.executable, argv)
