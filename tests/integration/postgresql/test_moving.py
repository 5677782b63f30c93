"""A store moved to PostgreSQL, into a file, and out of one: all of it, and nobody acts with two copies."""

from __future__ import annotations

import asyncio
import gzip
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.stores import rows
from tests.conformance.stores.rows import Writing
from tests.postgres import Postgres

from towline.core.rows import DurationRow, KeyRow, UsageRow
from towline.errors import StaleTerm, StoreError
from towline.store import codec
from towline.store.access import AuditRow, EnrolmentRow, TokenRow
from towline.store.address import Address
from towline.store.delivery.rows import DeliveryRow
from towline.store.moving import moving
from towline.store.moving.file import FORMAT, FileTarget, Header
from towline.store.moving.moving import Place
from towline.store.moving.postgresql import PostgresSource
from towline.store.moving.sqlite import SqliteSource
from towline.store.moving.tables import Shape, shapes
from towline.store.port import Store
from towline.store.postgresql import PostgresStore
from towline.store.sqlite import SqliteStore

MANY = 12_345


def quiet(table: str, done: int, total: int) -> None: ...


async def fill(store: Store) -> Writing:
    """A row in every table, and more than one piece of some."""
    leader = await Writing.lead(store, "default")
    await leader.submit("j1", 1, message="größer \N{PILE OF POO}", cancel_requested=True)
    await leader.commit(
        elements=[rows.element("j1", index, "succeeded", exit_code=0) for index in range(MANY)],
        attempts=[rows.attempt("j1", 3, 1, "running", peak_memory_bytes=2**62)],
        ranges=[rows.ended_range("j1", MANY, MANY + 7)],
        events=[rows.event(number, "j1", text="x" * number) for number in range(1, 30)],
        nodes=[rows.node("n1", taints=("a=b",))],
        queues=[rows.queue("q")],
        usages=[UsageRow(namespace="default", usage=2**60, at=7)],
        durations=[DurationRow(namespace="default", name="flights", task="main", data={"count": 3})],
        keys=[KeyRow(namespace="default", key="used", digest="d", job="j1", created_at=5)],
    )
    await store.reserve([rows.reservation("k1", job="j1")])
    await store.seal_put("", "authority", "towline", bytes(range(256)), None, 5)
    await store.token_put(
        TokenRow(
            id="t",
            kind="join",
            name="ci",
            role="viewer",
            namespace="default",
            digest=b"\0\xff",
            created_at=1,
            pool="gpu",
        )
    )
    await store.enrolment_put(EnrolmentRow(node="n1", name="n1", enrolled_at=1, expires_at=2, pool="gpu"))
    other = await Writing.lead(store, "gpu")
    await other.submit("j9", 1)
    await other.commit(nodes=[rows.node("n9")], events=[rows.event(1, "j9")])
    await store.audit_append(
        [AuditRow(seq=0, at=1, who="w", namespace="n", action="a", target="t", status=200, source="s")]
    )
    due = DeliveryRow(pool="default", number=29, position=0, job="j1", outcome="failed", next_at=3)
    await store.delivery_add("default", 29, [due])
    return leader


async def everything(place: Place) -> dict[str, list[Any]]:
    source = PostgresSource(place) if isinstance(place, Address) else SqliteSource(place)
    if isinstance(source, PostgresSource):
        await source.open()
    found = {shape.name: [row async for piece in source.rows(shape) for row in piece] for shape in shapes()}
    if isinstance(source, PostgresSource):
        await source.close()
    else:
        source.close()
    assert all(found.values()), [name for name, kept in found.items() if not kept]
    return found


def but_for_terms(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A pool's second column is its term."""
    return found | {"pool": [(row[0], *row[2:]) for row in found["pool"]]}


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A filled store on SQLite, closed."""
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    await fill(store)
    await store.close()
    return store.path


@pytest.fixture
def address(server: Postgres, tmp_path: Path) -> Address:
    return Address(server.own(tmp_path))


async def test_a_copy_has_everything(file: Path, address: Address) -> None:
    before = await everything(file)
    told: list[tuple[str, int, int]] = []
    counts = await moving.copy(file, address, lambda *one: told.append(one))
    total = sum(counts.values())
    assert told[-1][1:] == (total, total) and ("element", 5_008, total) in told
    after = await everything(address)
    assert but_for_terms(after) == but_for_terms(before)
    assert after["pool"][0][1] > before["pool"][0][1]

    store = PostgresStore(address.url)
    await store.open()
    leader = await Writing.lead(store, "default")
    assert leader.commit_no == 2
    leader.event_no = 29
    await leader.submit("j2", 2)
    await store.close()


async def test_the_old_store_commits_nothing_any_more(file: Path, address: Address) -> None:
    old = SqliteStore(file)
    await old.open()  # a server that nobody stopped
    leader = await Writing.lead(old, "default")
    await moving.copy(file, address, quiet)
    again = SqliteStore(file)
    with pytest.raises(
        StoreError, match=r"is closed: it was moved to postgresql://towline@.*tow db raise-terms"
    ):
        await again.open()
    new = PostgresStore(address.url)
    await new.open()
    assert await new.raise_term("default") > leader.term
    await new.close()
    await old.close()
    await moving.raise_terms(file)
    await again.open()
    with pytest.raises(StaleTerm):
        await again.commit("default", leader.term, leader.commit_no, rows.changes(nodes=[rows.node()]))
    await again.close()


async def test_a_target_that_is_not_empty_is_refused(file: Path, address: Address) -> None:
    store = PostgresStore(address.url)
    await store.open()
    await store.raise_term("other")
    with pytest.raises(StoreError, match=r"is not empty: its table pool has rows"):
        await moving.copy(file, address, quiet)
    assert await store.counters("default") == (0, 0)
    await store.close()
    unharmed = SqliteStore(file)
    await unharmed.open()
    await unharmed.close()


async def test_a_copy_that_breaks_off_leaves_both_as_they_were(file: Path, address: Address) -> None:
    class Enough(Exception):
        pass

    def tell(table: str, done: int, total: int) -> None:
        if done > 6_000:
            raise Enough

    with pytest.raises(Enough):
        await moving.copy(file, address, tell)
    store = SqliteStore(file)
    await store.open()
    await store.close()
    await moving.copy(file, address, quiet)
    assert len((await everything(address))["element"]) == MANY


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
async def test_a_backup_is_restored_and_acts_only_when_told(
    store: PostgresStore, server: Postgres, tmp_path: Path, to: str
) -> None:
    """Made of a store whose leader goes on meanwhile."""
    leader = await fill(store)
    before = await everything(store.address)
    backup = tmp_path / "towline.backup"
    await moving.backup(store.address, backup, quiet)
    await leader.submit("later", 2)
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    place: Place = tmp_path / "home" / "state.db"
    if to == "postgresql":
        place = Address(server.own("restored" + str(tmp_path)))
    await moving.restore(backup, place, quiet)
    assert await everything(place) == before

    opened: Store = PostgresStore(place.url) if isinstance(place, Address) else SqliteStore(place)
    with pytest.raises(StoreError, match=r"is closed: it was restored from a backup of \d{4}-.*raise-terms"):
        await opened.open()
    await moving.raise_terms(place)
    await opened.open()
    assert await opened.raise_term("default") > leader.term + 1_000_000
    assert await opened.job("later") is None
    await opened.close()


async def test_a_server_that_has_just_opened_the_empty_database_never_leads_what_is_restored(
    file: Path, address: Address, tmp_path: Path
) -> None:
    backup = tmp_path / "b"
    await moving.backup(file, backup, quiet)
    server = PostgresStore(address.url)
    await server.open()
    leading: list[asyncio.Future[int]] = []

    def tell(table: str, done: int, total: int) -> None:
        if not leading:  # in the middle of it
            leading.append(asyncio.ensure_future(server.raise_term("default")))

    await moving.restore(backup, address, tell)
    with pytest.raises(StoreError, match="is closed: it was restored from a backup"):
        await leading[0]
    with pytest.raises(StoreError, match="is closed: it was restored from a backup"):
        await server.raise_term("another")
    await moving.raise_terms(address)
    assert await server.raise_term("default") > 1_000_000
    await server.close()


async def test_a_second_restore_has_higher_terms_than_the_first(file: Path, tmp_path: Path) -> None:
    backup = tmp_path / "b"
    await moving.backup(file, backup, quiet)
    terms: list[int] = []
    for name in ("one", "two"):
        place = tmp_path / name / "state.db"
        await moving.restore(backup, place, quiet)
        await moving.raise_terms(place)
        terms.append((await everything(place))["pool"][0][1])
    assert terms == sorted(terms)


@pytest.mark.parametrize("damage", ["cut", "changed", "none", "empty"])
async def test_a_backup_that_is_damaged_restores_nothing(
    file: Path, address: Address, tmp_path: Path, damage: str
) -> None:
    backup = tmp_path / "b"
    await moving.backup(file, backup, quiet)
    whole = backup.read_bytes()
    middle = len(whole) // 2
    backup.write_bytes(
        {
            "cut": whole[:middle],
            "changed": whole[:middle] + bytes(8) + whole[middle + 8 :],
            "none": b"no backup",
            "empty": gzip.compress(b""),
        }[damage]
    )
    for place in (address, tmp_path / "home" / "state.db"):
        with pytest.raises(StoreError, match=r"/b (is damaged|is no backup|cannot be read)"):
            await moving.restore(backup, place, quiet)
    assert not (tmp_path / "home" / "state.db").exists()
    store = PostgresStore(address.url)
    await store.open()
    assert await store.counters("default") == (0, 0)
    await store.close()


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
async def test_a_backup_of_an_older_version_is_brought_up_to_date(
    address: Address, tmp_path: Path, to: str
) -> None:
    """Made when nodes had no ``lease_ms``, did not say when they spoke, and there were no servers' rows."""
    pool, node = (next(shape for shape in shapes() if shape.name == name) for name in ("pool", "node"))
    kept = [at for at, name in enumerate(node.columns) if name not in ("lease_ms", "boot_id", "said_ms")]
    older = Shape("node", *(tuple(of[at] for at in kept) for of in (node.columns, node.kinds)), node.key)
    header = Header(
        format=FORMAT,
        revision="0004",
        made_at=0,
        origin="",
        shapes=[pool, older],
        counts={"pool": 1, "node": 1},
    )
    backup = FileTarget(tmp_path / "b", header)
    backup.write(pool, [("default", 3, 9, 4, 1)])
    (cells,) = codec.NODE.encode([rows.node("n1")], "default")
    backup.write(older, [tuple(cells[at] for at in kept)])
    backup.finish()
    place: Place = address if to == "postgresql" else tmp_path / "home" / "state.db"
    await moving.restore(tmp_path / "b", place, quiet)
    await moving.raise_terms(place)
    store: Store = PostgresStore(place.url) if isinstance(place, Address) else SqliteStore(place)
    await store.open()
    assert await store.nodes("default") == [rows.node("n1")]
    leader = await Writing.lead(store, "default")
    assert leader.commit_no == 9
    await store.close()


async def test_a_backup_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    header = Header(format=FORMAT, revision="9999", made_at=0, origin="", shapes=[], counts={})
    backup = FileTarget(tmp_path / "b", header)
    backup.finish()
    with pytest.raises(StoreError, match=r"made by a newer Towline \(its schema is 9999"):
        await moving.restore(tmp_path / "b", tmp_path / "state.db", quiet)


async def test_nothing_is_written_over(file: Path, tmp_path: Path) -> None:
    backup = tmp_path / "b"
    await moving.backup(file, backup, quiet)
    with pytest.raises(StoreError, match="is there already: choose another name"):
        await moving.backup(file, backup, quiet)
    with pytest.raises(StoreError, match="is there already: move it away first"):
        await moving.restore(backup, file, quiet)
