"""What only the SQLite store promises: one file of its owner, many callers, readers in other processes."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing

from towline.errors import StoreError
from towline.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "state.db")
    await opened.open()
    yield opened
    await opened.close()


async def test_the_files_are_their_owners_alone(store: SqliteStore) -> None:
    await store.raise_term("default")
    files = sorted(store.path.parent.iterdir())
    assert [path.name for path in files] == ["state.db", "state.db-shm", "state.db-wal"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


async def test_fifty_submitters_and_a_leader_at_once(store: SqliteStore) -> None:
    leader = await Writing.lead(store, "default")
    await leader.submit("j0", 1)

    async def submit(number: int) -> None:
        for turn in range(5):
            key = f"k{number}-{turn}"
            await store.reserve([rows.reservation(key, job=key)])
            assert [row.id for row in await store.jobs("default", None, 1)] == ["j0"]
            if turn % 2:
                await store.release("default", key)

    async def lead() -> None:
        for number in range(1, 40):
            await leader.commit(events=[rows.event(number)], elements=[rows.element("j0", number)])

    await asyncio.gather(lead(), *(submit(number) for number in range(50)))
    assert await store.counters("default") == (1, 39)
    stands = await store.reserve(
        [rows.reservation(f"k{n}-{t}", job="new") for n in range(50) for t in range(5)]
    )
    assert sum(one.job == "new" for one in stands) == 100


async def test_work_that_waited_together_is_refused_alone(store: SqliteStore) -> None:
    leader = await Writing.lead(store, "default")
    late = Writing(store, "default", 99, 0)
    outcomes = await asyncio.gather(
        store.reserve([rows.reservation("k1")]),
        late.submit("j9", 1),
        leader.submit("j1", 1),
        store.reserve([rows.reservation("k2")]),
        return_exceptions=True,
    )
    assert [type(outcome).__name__ for outcome in outcomes] == ["list", "StaleTerm", "NoneType", "list"]
    assert [row.id for row in await store.jobs("default", None, 9)] == ["j1"]
    taken = await store.reserve([rows.reservation("k1", job="x"), rows.reservation("k2", job="x")])
    assert [one.job for one in taken] == ["j1", "j1"]


async def test_a_caller_that_gives_up_stops_nothing(store: SqliteStore) -> None:
    leader = await Writing.lead(store, "default")
    waiting = asyncio.ensure_future(
        store.commit("default", leader.term, 0, rows.changes(nodes=[rows.node()]))
    )
    await asyncio.sleep(0)  # until it has been handed over
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    leader.commit_no = 1
    await leader.submit("j1", 1)
    assert len(await store.nodes("default")) == 1


async def test_another_process_reads_while_this_one_writes(store: SqliteStore) -> None:
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    program = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True, isolation_level=None)\n"
        "c.execute('BEGIN')\n"
        "print(c.execute('SELECT event_no FROM pool').fetchone()[0], flush=True)\n"
        "sys.stdin.readline()\n"  # meanwhile there are commits; this snapshot stays
        "print(c.execute('SELECT event_no FROM pool').fetchone()[0], flush=True)\n"
        "c.execute('COMMIT')\n"
        "print(c.execute('SELECT event_no FROM pool').fetchone()[0], flush=True)\n"
    )
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(store.path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert reader.stdin is not None and reader.stdout is not None
    assert await reader.stdout.readline() == b"0\n"
    for number in range(1, 21):
        await leader.commit(events=[rows.event(number, "j1")])
    reader.stdin.write(b"\n")
    assert await reader.stdout.read() == b"0\n20\n"
    assert await reader.wait() == 0


async def test_a_row_that_does_not_decode_takes_its_job_alone(store: SqliteStore) -> None:
    leader = await Writing.lead(store, "default")
    for seq, job in enumerate(("whole", "badspec", "badrow", "badtask"), 1):
        await leader.submit(job, seq)
    await leader.commit(elements=[rows.element("badrow", 0), rows.element("whole", 0)])
    connection = sqlite3.connect(store.path)
    connection.execute("UPDATE spec SET spec = ? WHERE job = 'badspec'", (b'{"name": "x"',))
    connection.execute("UPDATE element SET failures = 'many' WHERE job = 'badrow'")
    connection.execute("UPDATE task SET ready = 7 WHERE job = 'badtask'")
    connection.commit()
    connection.close()
    snapshot, damaged = await store.load("default", leader.term)
    assert [row.id for row in snapshot.jobs] == ["whole"]
    assert [row.job for row in snapshot.elements] == ["whole"]
    assert sorted(damaged) == sorted(row.id for row in snapshot.set_aside) == ["badrow", "badspec", "badtask"]
    assert damaged["badrow"].startswith("the row job='badrow' task=0 idx=0 of table element does not decode")
    with pytest.raises(StoreError, match=r"state\.db is damaged: the row job='badspec' of table spec"):
        await store.job("badspec")


async def test_a_value_that_no_column_holds_is_a_store_error(store: SqliteStore) -> None:
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    with pytest.raises(StoreError, match=r"state\.db"):
        await leader.commit(attempts=[rows.attempt("j1", 0, peak_memory_bytes=2**63)])
    await leader.commit(attempts=[rows.attempt("j1", 0, peak_memory_bytes=2**63 - 1)])


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    await store.close()
    with pytest.raises(StoreError, match="the store is closed"):
        await store.raise_term("default")
    with pytest.raises(StoreError, match="the store is closed"):
        await store.counters("default")


async def test_work_handed_over_before_the_end_is_done(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    raising = [asyncio.ensure_future(store.raise_term("default")) for _ in range(20)]
    await asyncio.sleep(0)  # until all have been handed over
    await store.close()
    assert await asyncio.gather(*raising) == list(range(1, 21))


async def test_checkpoints_keep_the_log_short(store: SqliteStore) -> None:
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1)
    for commit in range(60):
        low = commit * 1000
        await leader.commit(elements=[rows.element("j1", index) for index in range(low, low + 1000)])
    log = store.path.with_name("state.db-wal")
    assert log.stat().st_size < store.path.stat().st_size
    page = await store.elements("j1", 0, 59_997, 60_000)
    assert [row.index for row in page.elements] == [59_998, 59_999]
