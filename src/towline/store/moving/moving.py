"""Copy a store, back it up, restore it, and let one that was closed act again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from towline.errors import StoreError
from towline.store.address import Address
from towline.store.migrations import HEAD
from towline.store.moving import postgresql, sqlite
from towline.store.moving.file import FORMAT, FileSource, FileTarget, Header
from towline.store.moving.postgresql import PostgresSource, PostgresTarget, explained
from towline.store.moving.sqlite import SqliteSource, SqliteTarget
from towline.store.moving.tables import Shape, Source, Target
from towline.store.postgresql.connections import connect
from towline.store.postgresql.upgrade import prepare
from towline.store.sqlite.connections import open_writer

Place = Address | Path
"""A database of PostgreSQL, or SQLite's file."""
Progress = Callable[[str, int, int], None]
"""Is told, after each piece: the table, rows of all tables so far, and of how many."""

RESTORED = (
    "it was restored from a backup of {when}. What happened since then it does not know. Once nothing that "
    "worked with the old store runs any more, let it act: tow db raise-terms {place}"
)
MOVED = "it was moved to {target}: point store_url there. To go back: tow db raise-terms {place}"


async def copy(path: Path, target: Address, progress: Progress) -> dict[str, int]:
    """Everything of the file into an empty database; the file is closed from the first moment on. Returns the
    rows by table. Raises StoreError."""
    source = SqliteSource(path)
    place = PostgresTarget(target)
    try:
        source.check_open()
        await place.begin(source.revision)
        _set_acting(path, MOVED.format(target=target, place=written(path)))
        try:
            counts = await _move(source, place, progress)
            await place.finish(None)
        except BaseException as error:
            if not place.asked:
                _set_acting(path, None)
            elif isinstance(error, StoreError):
                raise StoreError(
                    f"{error}; whether {target} has everything now is not known, so {path} stays closed: "
                    f"look at it, and use it, or open the file again: tow db raise-terms {written(path)}"
                ) from error
            raise
        return counts
    finally:
        source.close()
        await place.close()


def _set_acting(path: Path, closed: str | None, *, raised: bool = False) -> None:
    """As ``sqlite.set_acting``, of the file as a whole."""
    with sqlite.explained(path):
        connection = open_writer(path)
        try:
            sqlite.set_acting(connection, closed, raised=raised)
        finally:
            connection.close()


async def _move(source: Source, target: Target, progress: Progress) -> dict[str, int]:
    counts = {shape.name: await source.count(shape) for shape in source.shapes}
    total, done = sum(counts.values()), 0
    for shape in source.shapes:
        async for rows in source.rows(shape):
            await target.write(shape, rows)
            done += len(rows)
            progress(shape.name, done, total)
        await _check(shape, counts[shape.name], target)
    return counts


async def _check(shape: Shape, wanted: int, target: Target) -> None:
    found = await target.count(shape)
    if found != wanted:
        raise StoreError(f"of table {shape.name} {found} of {wanted} rows arrived: nothing was kept")


async def backup(place: Place, path: Path, progress: Progress) -> dict[str, int]:
    """Everything of a store, as it is at one moment, into a new file. Servers may go on meanwhile."""
    source = PostgresSource(place) if isinstance(place, Address) else SqliteSource(place)
    target: FileTarget | None = None
    try:
        if isinstance(source, PostgresSource):
            await source.open()
        counts = {shape.name: await source.count(shape) for shape in source.shapes}
        now_ms, shapes = time.time_ns() // 10**6, list(source.shapes)
        target = FileTarget(
            path,
            Header(
                format=FORMAT, revision=HEAD, made_at=now_ms, origin=str(place), shapes=shapes, counts=counts
            ),
        )
        total, done = sum(counts.values()), 0
        for shape in shapes:
            async for rows in source.rows(shape):
                target.write(shape, rows)
                done += len(rows)
                progress(shape.name, done, total)
        target.finish()
        return counts
    finally:
        if target is not None:
            target.close()
        if isinstance(source, PostgresSource):
            await source.close()
        else:
            source.close()


async def restore(path: Path, place: Place, progress: Progress) -> dict[str, int]:
    """Everything of a backup into an empty store, which is closed until its terms are raised."""
    source = FileSource(path)
    target = PostgresTarget(place) if isinstance(place, Address) else SqliteTarget(place)
    try:
        await target.begin(source.revision)
        counts = await _move(source, target, progress)
        source.check_end()
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(source.header.made_at / 1000))
        await target.finish(RESTORED.format(when=when, place=written(place)))
        return counts
    finally:
        source.close()
        if isinstance(target, PostgresTarget):
            await target.close()
        else:
            target.close()


async def raise_terms(place: Place) -> None:
    """Let a store act that was closed, and may not know all that was done with what it holds. Its terms
    become higher than any that was ever used before, and so do its attempts' numbers: see
    ``core.leadership``."""
    if isinstance(place, Address):
        with explained(place):
            connection = await connect(place)
            try:
                sqlite.checked_revision(await postgresql.revision(place, connection), str(place))
                async with connection.transaction():
                    await postgresql.set_acting(connection, None)
                    await postgresql.raise_terms(connection)
            finally:
                await connection.close()
        return
    SqliteSource(place).close()  # raises where it is not one of ours
    _set_acting(place, None, raised=True)


async def upgrade(place: Place) -> tuple[str | None, str]:
    """The revision before, and now."""
    if isinstance(place, Address):
        return await prepare(place), HEAD
    from towline.store.upgrade import prepare_sqlite, sqlite_revision

    with sqlite.explained(place):
        place.touch(mode=0o600)
        connection = open_writer(place)
        try:
            found = sqlite_revision(connection, place)
            prepare_sqlite(connection, place)
        finally:
            connection.close()
    return found, HEAD


def written(place: Place) -> str:
    """As commands take it."""
    return str(place) if isinstance(place, Address) else f"sqlite:{place}"


def place_of(text: str) -> Place:
    """What ``written`` writes. Raises ValueError."""
    if text.startswith("sqlite:"):
        path = Path(text.removeprefix("sqlite:").removeprefix("//"))
        return path / "state.db" if path.is_dir() else path
    return Address(text)
