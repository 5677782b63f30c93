"""``tow token``, ``tow whoami`` and ``tow audit``: who may use a cluster, and who did what."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client
    from towline.client.cluster.access import Access
    from towline.model.access_views import JoinTokenView, TokenView

token = typer.Typer(help="Tokens: who may use the cluster, and links that make nodes.", no_args_is_help=True)
_MOST = 1000


def add(app: typer.Typer) -> None:
    token.command("create")(create)
    token.command("ls")(ls)
    token.command("rm")(rm)
    app.add_typer(token, name="token")
    app.command("whoami")(whoami)
    app.command("audit")(audit)


def _access(client: Client) -> Access:
    from towline.client.cluster.access import Access

    return Access(client)


def create(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Whose it is, such as ada or ci.")
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            help="viewer (reads), submitter (also submits, cancels, sets secrets) or admin (everything)."
        ),
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="A link for `tow agent` instead: one machine, once.")
    ] = False,
    lifetime: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Such as 30d. [default: until it is removed; of a link: 1h]"),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Whose jobs it is for; '*': all. [default: default, of admins: *]"),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST[:PORT]", help="How the machine reaches the server, for a link."),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            "--pool",
            metavar="NAME",
            help="The pool that the machine joins. [default: the one there from the start]",
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Make a token for a person or a program, or a link that makes a machine a node.

    It is printed once, and kept nowhere: only a hash of it is.

    \b
    Examples:
      tow token create ada --role submitter
      tow token create ci --role viewer --lifetime 30d
      tow token create bob --role submitter --namespace team-b
      tow token create --join --address tow.lan
      tow token create --join --pool gpu
    """

    async def work(client: Client) -> int:
        from towline.errors import RequestError

        if join:
            if name is not None or role is not None or namespace is not None:
                raise RequestError(
                    "--join makes a link for a machine: it has neither NAME nor --role nor --namespace."
                )
            link = await _access(client).create_join(lifetime, address, pool)
            if json:
                terminal.write_json(link)
            else:
                terminal.write(f"tow agent --join {shlex.quote(terminal.safe(link.link))}")
                terminal.say(
                    "Run this on the machine that is to be a node of the pool "
                    f"{terminal.safe(link.pool)}, until {link.expires_at}. "
                    f"To take it back: tow token rm {link.id}"
                )
            return terminal.OK
        if name is None or role is None or address is not None or pool is not None:
            raise RequestError(
                "Give a name and a role, as in: tow token create ada --role submitter; or --join for a node."
            )
        made = await _access(client).create(name, role, lifetime, namespace)
        if json:
            terminal.write_json(made)
        else:
            terminal.write(made.token or "")
            where = "everywhere" if made.namespace == "*" else f"in namespace {made.namespace}"
            terminal.say(f"The token of {made.name}, {made.role} {where}. It is not shown again.")
        return terminal.OK

    terminal.ask(work)


def ls(json: AsJson = False) -> None:
    """List the tokens, without their texts, and the join links that nobody has used yet.

    \b
    Examples:
      tow token ls
    """

    async def work(client: Client) -> int:
        found = await _access(client).tokens()
        if json:
            terminal.write_json(found)
        else:
            rows = [_row(one, one.name, one.role) for one in found.tokens]
            rows += [_row(one, None, f"join link of {one.pool}") for one in found.joins]
            terminal.table(("name", "role", "id", "created", "expires"), rows)
        return terminal.OK

    terminal.ask(work)


def _row(one: TokenView | JoinTokenView, name: str | None, role: str) -> tuple[object, ...]:
    return name, role, one.id, one.created_at, one.expires_at or "never"


def rm(
    which: Annotated[str, typer.Argument(metavar="NAME", help="A token's name or id, or a join link's id.")],
    json: AsJson = False,
) -> None:
    """Take a token or a join link back: it is worth nothing from now on.

    \b
    Examples:
      tow token rm ci
      tow token rm 4f1d02c9aa37
    """

    async def work(client: Client) -> int:
        removed = await _access(client).delete(which)
        if json:
            terminal.write_json(removed)
        else:
            what = f"the token of {removed.name}, {removed.role}" if removed.name else "the join link"
            terminal.say(f"Removed {what}.")
        return terminal.OK

    terminal.ask(work)


def whoami(json: AsJson = False) -> None:
    """Show who the server takes you for.

    \b
    Examples:
      tow whoami
    """

    async def work(client: Client) -> int:
        who = await _access(client).whoami()
        if json:
            terminal.write_json(who)
        else:
            where = "everywhere" if who.namespace == "*" else f"in namespace {who.namespace}"
            terminal.write(f"{who.name}, {who.role} {where}")
        return terminal.OK

    terminal.ask(work)


def audit(
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, max=_MOST, help="So many at most.")] = 50,
    json: AsJson = False,
) -> None:
    """Show who did what: every request that was to change something, the newest last.

    Refused ones are shown too. Reading is not kept.

    \b
    Examples:
      tow audit -n 200
    """

    async def work(client: Client) -> int:
        page = await _access(client).audit(limit)
        if json:
            terminal.write_json(page)
            return terminal.OK
        rows = [(e.at, e.who, e.status, e.action, e.target, e.source) for e in reversed(page.entries)]
        terminal.table(("time", "who", "status", "action", "target", "from"), rows)
        return terminal.OK

    terminal.ask(work)
