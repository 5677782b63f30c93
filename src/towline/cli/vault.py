"""``tow secret`` and ``tow registry``: what the server keeps encrypted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client
    from towline.client.images import Registries
    from towline.client.secrets import Secrets

registry = typer.Typer(
    help="Registries: log in to those whose images are not for everybody.", no_args_is_help=True
)

secret = typer.Typer(
    help="Secrets: values that tasks get as files, kept encrypted and never shown again.",
    no_args_is_help=True,
)

_MOST_BYTES = 1 << 20  # the server says what is too large; what never ends is not read to its end

Host = Annotated[str, typer.Argument(metavar="HOST", help="A registry: ghcr.io, docker.io, localhost:5000.")]

Name = Annotated[str, typer.Argument(metavar="NAME", help="A secret's name, such as my-token.")]


def add(app: typer.Typer) -> None:
    secret.command("set")(set_secret)
    secret.command("ls")(ls_secrets)
    secret.command("rm")(rm_secret)
    app.add_typer(secret, name="secret")
    registry.command("login")(login)
    registry.command("logout")(logout)
    registry.command("ls")(ls)
    app.add_typer(registry, name="registry")


# --- secrets ------------------------------------------------------------------------------------------
def _secrets(client: Client) -> Secrets:
    from towline.client.secrets import Secrets

    return Secrets(client)


def set_secret(
    name: Name,
    from_file: Annotated[
        Path | None, typer.Option("--from-file", metavar="FILE", help="Take the bytes of a file as they are.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Keep a value under a name, in place of an older one.

    The value is asked for, or read from standard input; it is never an argument. Of a single line that is
    piped in, the end of the line is left out; anything else is kept as it is, up to 64 KiB. Running
    attempts keep what they have; those that start later get the new value.

    In what a task prints, the values of its secrets are shown as ***.

    \b
    Examples:
      tow secret set my-token
      pass show token | tow secret set my-token
      tow secret set tls.key --from-file server.key
    """

    async def work(client: Client, value: bytes) -> int:
        view = await _secrets(client).set(name, value)
        _warn_of_short(view.name, value)
        if json:
            terminal.write_json(view)
        else:
            use = f"secrets: {{TOKEN: {view.name}}}"
            terminal.say(f"Stored {view.name}, version {view.version}. In a task: {use}")
        return terminal.OK

    def kept() -> int | None:
        value = _value(name, from_file)
        return terminal.served(lambda client: work(client, value))

    terminal.end(kept)


def _warn_of_short(name: str, value: bytes) -> None:
    from towline.model.names import MASKED_BYTES

    if len(value.strip()) < MASKED_BYTES:
        terminal.say(
            f"warning: {name} is shorter than {MASKED_BYTES} bytes: it is not masked where a task prints it, "
            f"since it would be found everywhere (use a longer value)"
        )


def _value(name: str, from_file: Path | None) -> bytes:
    """Raises RequestError."""
    from towline.errors import RequestError

    if from_file is not None:
        try:
            with from_file.open("rb") as file:
                value = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise RequestError(f"{from_file} cannot be read: {error.strerror}.") from None
        if not value:
            raise RequestError(f"{from_file} is empty: a secret has at least one byte.")
        return value
    if sys.stdin.isatty():
        return _typed(f"Value of {name}").encode()
    piped = sys.stdin.buffer.read(_MOST_BYTES + 1)
    line = piped.removesuffix(b"\n").removesuffix(b"\r")
    return piped if b"\n" in line else line


def _typed(question: str) -> str:
    """What is typed without echo. Not for use while an event loop runs, which would keep Ctrl-C to itself.

    Raises KeyboardInterrupt for Ctrl-C and Ctrl-D."""
    try:
        return typer.prompt(question, hide_input=True, err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None


def ls_secrets(json: AsJson = False) -> None:
    """List the secrets. Their values are never shown.

    \b
    Examples:
      tow secret ls
    """

    async def work(client: Client) -> int:
        found = await _secrets(client).list()
        if json:
            terminal.write_json({"secrets": found})
        else:
            rows = [(view.name, view.version, view.updated_at) for view in found]
            terminal.table(("secret", "version", "set"), rows)
        return terminal.OK

    terminal.ask(work)


def rm_secret(name: Name) -> None:
    """Remove a secret. Attempts that run keep it; those that start later fail.

    \b
    Examples:
      tow secret rm my-token
    """

    async def work(client: Client) -> int:
        await _secrets(client).remove(name)
        terminal.say(f"Removed {terminal.safe(name)}.")
        return terminal.OK

    terminal.ask(work)


# --- logins -------------------------------------------------------------------------------------------
def _registries(client: Client) -> Registries:
    from towline.client.images import Registries

    return Registries(client)


def login(
    host: Host,
    user: Annotated[str, typer.Option("--user", "-u", metavar="USER", help="Who logs in.")],
    json: AsJson = False,
) -> None:
    """Keep a user and a password, encrypted, for the images of a registry.

    The password is asked for, or read from standard input; it is never an argument.

    \b
    Examples:
      tow registry login ghcr.io -u ada
      pass show ghcr | tow registry login ghcr.io -u ada
    """

    async def work(client: Client, password: str) -> int:
        view = await _registries(client).login(host, user, password)
        if json:
            terminal.write_json(view)
        else:
            terminal.say(f"Logged in to {terminal.safe(view.registry)} as {terminal.safe(view.user or '')}.")
        return terminal.OK

    def kept() -> int | None:
        password = _password(user, host)
        return terminal.served(lambda client: work(client, password))

    terminal.end(kept)


def _password(user: str, host: str) -> str:
    """From the terminal without echo, or the first line of what is piped in."""
    if sys.stdin.isatty():
        return _typed(f"Password of {user} at {host}")
    return sys.stdin.readline().rstrip("\r\n")


def logout(host: Host) -> None:
    """Forget the login at a registry.

    \b
    Examples:
      tow registry logout ghcr.io
    """

    async def work(client: Client) -> int:
        await _registries(client).logout(host)
        terminal.say(f"Logged out of {terminal.safe(host)}.")
        return terminal.OK

    terminal.ask(work)


def ls(json: AsJson = False) -> None:
    """List the registries with a login. Passwords are never shown.

    \b
    Examples:
      tow registry ls
    """

    async def work(client: Client) -> int:
        found = await _registries(client).list()
        if json:
            terminal.write_json({"registries": found})
        else:
            rows = [(view.registry, view.user, view.updated_at) for view in found]
            terminal.table(("registry", "user", "since"), rows)
        return terminal.OK

    terminal.ask(work)
