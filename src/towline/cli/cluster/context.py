"""``tow context``: the clusters that this user works with."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client.cluster.contexts import Contexts
    from towline.client.cluster.remote import Remote

context = typer.Typer(help="Contexts: which server the commands talk to.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A context's name, such as lab.")]


def add(app: typer.Typer) -> None:
    context.command("add")(create)
    context.command("use")(use)
    context.command("ls")(ls)
    context.command("rm")(rm)
    app.add_typer(context, name="context")


def _contexts() -> Contexts:
    from towline.client.cluster.contexts import Contexts, contexts_file

    return Contexts(contexts_file(os.environ))


def create(
    name: Name,
    server: Annotated[
        str, typer.Option(metavar="URL[,URL]", help="https://HOST:PORT; of several servers each.")
    ],
    ca: Annotated[
        str,
        typer.Option(
            metavar="FILE|sha256:HEX", help="The cluster's authority: its certificate, or its fingerprint."
        ),
    ],
) -> None:
    """Keep a server's address, token and authority under a name, and use it from now on.

    The token is asked for, or read from standard input; it is never an argument.

    \b
    Examples:
      tow context add lab --server https://tow.lan:7443 --ca sha256:5f…
      tow run job.yaml                      runs there now
      TOWLINE_CONTEXT=local tow jobs        this machine's own server
    """

    def work() -> int:
        from towline.client.cluster.contexts import check_name
        from towline.client.cluster.remote import Remote, checked_token, checked_urls

        check_name(name)
        url = checked_urls(server, "--server")
        authority = _authority(url, ca)
        token = (
            typer.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
        )
        remote = Remote(url=url, token=checked_token(token, "What was given"), authority=authority)
        who = _checked(remote)
        _contexts().add(name, remote)
        terminal.say(f"Using {name} from now on: {url}, as {who}.")
        warn_of_others(name)
        return terminal.OK

    terminal.end(work)


def warn_of_others(name: str) -> None:
    """Where variables name another server, which counts before the context that is used."""
    for variable in ("TOWLINE_SERVER", "TOWLINE_CONTEXT", "TOWLINE_HOME"):
        value = os.environ.get(variable)
        if (variable, value) == ("TOWLINE_CONTEXT", name) or (variable, name) == ("TOWLINE_HOME", "local"):
            return
        if value:
            other = f" (or set TOWLINE_CONTEXT={name})" if variable == "TOWLINE_HOME" else ""
            terminal.say(f"warning: {variable} is set and goes before it: unset it{other}")
            return


def _authority(url: str, given: str) -> str:
    """The certificate of a file, or the one that the server shows, where its fingerprint is the given one."""
    if not given.startswith("sha256:"):
        from towline.client.cluster.remote import read_authority

        return read_authority(given, "--ca")
    from towline.errors import RequestError, Unavailable
    from towline.identity.joining import is_fingerprint
    from towline.identity.trust import shown_authority

    if not is_fingerprint(given):
        raise RequestError(
            f"--ca is {given!r}: write sha256: and 64 hexadecimal digits, as `tow token create --join` "
            "prints them, or the file of the certificate"
        )
    *others, last = url.split(",")
    for one in others:
        with contextlib.suppress(Unavailable):
            return shown_authority(one, given)
    return shown_authority(last, given)


def _checked(remote: Remote) -> str:
    """Who the server takes the token for. Raises what is wrong with it."""
    import asyncio

    from towline.client import Client
    from towline.client.cluster.access import Access
    from towline.errors import RequestError, Unauthenticated

    async def ask() -> str:
        async with Client(remote, patience_s=0) as client:
            try:
                who = await Access(client).whoami()
            except Unauthenticated:
                raise RequestError(
                    "The server does not take this token: it is none of this cluster, was taken back, or has "
                    "ended. An admin makes another one: tow token create NAME --role submitter"
                ) from None
            return f"{who.name}, {who.role}"

    return asyncio.run(ask())


def use(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A context, or local: this machine's own server.")
    ],
) -> None:
    """Talk to this server from now on.

    \b
    Examples:
      tow context use lab
      tow context use local
    """

    def work() -> int:
        _contexts().use(name)
        terminal.say(f"Using {name} from now on.")
        warn_of_others(name)
        return terminal.OK

    terminal.end(work)


def ls(json: AsJson = False) -> None:
    """List the contexts; the one that is used is marked.

    \b
    Examples:
      tow context ls
    """

    def work() -> int:
        contexts = _contexts()
        rows = [(name, contexts.get(name).url, name == contexts.current) for name in contexts.names]
        if json:
            shown = [{"name": name, "server": url, "current": current} for name, url, current in rows]
            terminal.write_json({"contexts": shown})
        else:
            local = ("local", "this machine", contexts.current is None)
            marked = [("*" if current else "", name, url) for name, url, current in [local, *rows]]
            terminal.table(("", "name", "server"), marked)
        return terminal.OK

    terminal.end(work)


def rm(name: Name) -> None:
    """Forget a context.

    \b
    Examples:
      tow context rm lab
    """

    def work() -> int:
        _contexts().remove(name)
        terminal.say(f"Forgot {name}.")
        return terminal.OK

    terminal.end(work)
