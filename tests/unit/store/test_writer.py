"""The one thread that writes: what is refused leaves nothing behind, alone or beside others."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from threading import Event

import pytest

from towline.errors import StaleTerm, Unstorable
from towline.store.sqlite.connections import explain, open_writer
from towline.store.sqlite.writer import Writer


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    path = tmp_path / "state.db"
    writer = Writer(lambda: open_writer(path), lambda error: explain(path, error))
    writer.start()
    await writer.run(lambda connection: connection.execute("CREATE TABLE seen (name TEXT)") and None)
    yield writer
    await writer.stop()


def adding(name: str, *, refused: bool = False) -> Callable[[sqlite3.Connection], None]:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO seen VALUES (?)", (name,))
        if refused:
            raise StaleTerm("too late")

    return work


async def seen(writer: Writer) -> list[str]:
    rows = await writer.run(lambda connection: connection.execute("SELECT name FROM seen").fetchall())
    return [name for (name,) in rows]


async def test_what_is_refused_alone_leaves_nothing(writer: Writer) -> None:
    with pytest.raises(StaleTerm):
        await writer.run(adding("refused", refused=True))
    await writer.run(adding("next"))
    assert await seen(writer) == ["next"]


async def test_what_is_refused_among_others_takes_nothing_of_them_with_it(writer: Writer) -> None:
    held = Event()
    first = asyncio.ensure_future(writer.run(lambda _: held.wait(30)))  # the others gather behind it
    others = [writer.run(adding(name, refused=name == "b")) for name in "abc"]
    waiting = asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0)
    held.set()
    assert await first
    outcomes = await waiting
    assert [type(outcome) for outcome in outcomes] == [type(None), StaleTerm, type(None)]
    assert await seen(writer) == ["a", "c"]


@pytest.mark.parametrize("value", [2**63, "\ud800", object()])
async def test_a_value_that_sqlite_does_not_take_fails_its_own_work_alone(
    writer: Writer, value: object
) -> None:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO seen VALUES ('before')")
        connection.execute("INSERT INTO seen VALUES (?)", (value,))

    with pytest.raises(Unstorable, match=r"state\.db: it does not take a value of this: "):
        await writer.run(work)
    held = Event()
    first = asyncio.ensure_future(writer.run(lambda _: held.wait(30)))  # the others gather behind it
    waiting = asyncio.gather(
        writer.run(adding("a")), writer.run(work), writer.run(adding("c")), return_exceptions=True
    )
    await asyncio.sleep(0)
    held.set()
    assert await first
    assert [type(outcome) for outcome in await waiting] == [type(None), Unstorable, type(None)]
    assert await seen(writer) == ["a", "c"]
