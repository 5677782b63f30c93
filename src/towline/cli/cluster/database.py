"""``tow db``, ``tow backup`` and ``tow restore``: what an operator does with a whole store.

They work on the store itself, on the machine of a server: a store that is broken, closed or empty has no
server that could be asked.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from towline.cli.arguments import AsJson
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.store.moving.moving import Place

T = TypeVar("T")

database = typer.Typer(
    help="The store as a whole: bring its schema up to date, move it to PostgreSQL, let it act again.",
    no_args_is_help=True,
)

Where = Annotated[
    str | None,
    typer.Argument(
        metavar="STORE",
        help="postgresql://USER@HOST/DATABASE or sqlite:PATH. [default: the one of the server's settings]",
    ),
]
OtherStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="STORE",
        help="postgresql://USER@HOST/DATABASE or sqlite:PATH. [default: the one of the server's settings]",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Settings (TOML), in place of server.toml in TOWLINE_HOME."),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup's file.")]


def add(app: typer.Typer) -> None:
    database.command("upgrade")(upgrade)
    database.command("copy")(copy)
    database.command("raise-terms")(raise_terms)
    app.add_typer(database, name="db")
    app.command("backup")(backup)
    app.command("restore")(restore)


def upgrade(store: Where = None, config: Config = None, json: AsJson = False) -> None:
    """Bring the store's schema up to date.

    A server does so at its start. Servers of the version before go on working on the new schema, so that they
    can be replaced one after the other.

    \b
    Examples:
      tow db upgrade
      tow db upgrade postgresql://towline@db.lan/towline
    """

    def work() -> int:
        from towline.store.moving import moving

        place = _place(store, config)
        with _unused(place):
            before, now = _run(moving.upgrade(place))
        if json:
            terminal.write_json({"store": str(place), "before": before, "now": now})
            return terminal.OK
        done = "is up to date" if before == now else f"brought from {before or 'nothing'} to {now}"
        terminal.write(f"{place}: the schema {done}")
        return terminal.OK

    terminal.end(work)


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="sqlite:PATH, a server's home or its file.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="postgresql://USER@HOST/DATABASE, empty.")],
    json: AsJson = False,
) -> None:
    """Move a store from SQLite to PostgreSQL, with all that is in it.

    The server has to be stopped; what runs on nodes goes on meanwhile. Afterwards the file is closed, so that
    no server leads with it any more. Give the server store_url and start it. Each further server needs the
    same vault.key in its TOWLINE_HOME.

    \b
    Example:
      tow db copy sqlite:$HOME/.towline postgresql://towline@db.lan/towline
    """

    def work() -> int:
        from towline.errors import RequestError
        from towline.store.address import Address
        from towline.store.moving import moving

        origin, place = _given(source, "FROM"), _given(target, "TO")
        if isinstance(origin, Address) or not isinstance(place, Address):
            raise RequestError("tow db copy goes from sqlite:PATH to postgresql://USER@HOST/DATABASE")
        if not origin.exists():
            raise RequestError(f"FROM is {source!r}: there is no file {origin}")
        with _unused(origin), _progress() as progress:
            counts = _run(moving.copy(origin, place, progress))
        if json:
            return _told(place, counts)
        terminal.write(f"{sum(counts.values()):,} rows of {len(counts)} tables moved to {place}")
        terminal.write(f"{origin} is closed. Set store_url in server.toml to {place}, and start the server.")
        return terminal.OK

    terminal.end(work)


def raise_terms(store: Where = None, config: Config = None, json: AsJson = False) -> None:
    """Let a store act that was closed: one that was restored, or was moved elsewhere.

    Its terms become higher than all that were ever used with it, so that nodes obey its leaders and none of
    before. Do it only where nothing works with the other copy any more.

    \b
    Example:
      tow db raise-terms
    """

    def work() -> int:
        from towline.store.moving import moving

        place = _place(store, config)
        with _unused(place):
            _run(moving.raise_terms(place))
        if json:
            terminal.write_json({"store": str(place)})
            return terminal.OK
        terminal.write(f"{place}: terms raised; servers may use it")
        return terminal.OK

    terminal.end(work)


def backup(file: File, store: OtherStore = None, config: Config = None, json: AsJson = False) -> None:
    """Write everything that the store holds into a file, as it is at one moment.

    Servers go on meanwhile. Not in it: vault.key of TOWLINE_HOME, without which secrets and logins of the
    backup cannot be read, and output and artifacts, which are in the object store. Only its owner may read
    the file.

    \b
    Example:
      tow backup /var/backups/towline.backup
    """

    def work() -> int:
        from towline.store.moving import moving

        place = _place(store, config)
        with _progress() as progress:
            counts = _run(moving.backup(place, file, progress))
        if json:
            return _told(place, counts)
        terminal.write(f"{sum(counts.values()):,} rows of {len(counts)} tables of {place} are in {file}")
        return terminal.OK

    terminal.end(work)


def restore(file: File, store: OtherStore = None, config: Config = None, json: AsJson = False) -> None:
    """Put a backup into an empty store.

    The store is closed then: a server does not start with it until tow db raise-terms. Before that, make sure
    that no server and no agent works with the old one: what it did after the backup is not known here, and
    would happen again beside it.

    \b
    Example:
      tow restore /var/backups/towline.backup --store postgresql://towline@db.lan/towline
    """

    def work() -> int:
        from towline.store.moving import moving

        place = _place(store, config)
        with _unused(place, make=True), _progress() as progress:
            counts = _run(moving.restore(file, place, progress))
        if json:
            return _told(place, counts)
        terminal.write(f"{sum(counts.values()):,} rows of {len(counts)} tables restored to {place}")
        again = "" if store is None else f" {moving.written(place)}"
        terminal.write(f"It is closed. Once nothing works with the old one: tow db raise-terms{again}")
        return terminal.OK

    terminal.end(work)


def _told(place: Place, counts: dict[str, int]) -> int:
    terminal.write_json({"store": str(place), "rows": counts})
    return terminal.OK


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _place(store: str | None, config: Path | None) -> Place:
    """What is meant. Raises RequestError, WrongSetting."""
    if store is not None:
        return _given(store, "STORE")
    from towline.client.local import home_directory
    from towline.server.settings import read_settings
    from towline.store import FILE
    from towline.store.address import Address

    home = home_directory()
    url = read_settings(home, os.environ, file=config).store_url
    return Address(url) if url else home / FILE


def _given(text: str, name: str) -> Place:
    from towline.errors import RequestError
    from towline.store.moving import moving

    try:
        return moving.place_of(text)
    except ValueError as error:
        said = str(error).replace("store_url", name)
        raise RequestError(f"{said}; or sqlite:PATH") from None


@contextmanager
def _unused(place: Place, *, make: bool = False) -> Iterator[None]:
    """Hold the lock of the home whose file it is, as a server would. Raises RequestError where one does.
    ``make``: also where there is no such home yet, in which a server could start meanwhile."""
    from towline.store.address import Address

    if not isinstance(place, Address) and make:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if isinstance(place, Address) or not place.parent.is_dir():
        yield
        return
    from towline.coordination.filelock import FileLease
    from towline.errors import RequestError
    from towline.server.process.home import lease_path

    lease = FileLease(lease_path(place.parent))
    if not lease.try_acquire():
        raise RequestError(f"A server of {place.parent} runs: stop it first.")
    try:
        yield
    finally:
        lease.release()


@contextmanager
def _progress() -> Iterator[Any]:
    """A line on a terminal, which goes when all is done."""
    shown = sys.stderr.isatty()

    def tell(table: str, done: int, total: int) -> None:
        if shown:
            sys.stderr.write(f"\r\x1b[K{done:,} of {total:,} rows ({table})")
            sys.stderr.flush()

    try:
        yield tell
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
