"""The journal after crashes, torn writes, flipped bits and reboots."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.runtimes.registry import process_plan
from tests.small_disk import SmallDisk

from towline.agent.supervision.attempt import Replay
from towline.agent.supervision.journal import (
    Accepted,
    Begun,
    Cleaned,
    Confirmed,
    Ended,
    Forgotten,
    Journal,
    Record,
    Started,
    Stopping,
    pack,
    unpack,
)
from towline.core.commands import AttemptUpdate


def accepted(name: str) -> Accepted:
    return Accepted(process_plan("/node", f"job-0-{name}-1", "true"))


def started(name: str, starter: bool = False) -> Started:
    return Started(f"job-0-{name}-1", 77, starter, 1, 2, 3, 4, 5, (6, 7))


def ended(name: str, cleaned: bool = True) -> Ended:
    return Ended(AttemptUpdate(attempt=f"job-0-{name}-1", state="finished", exit_code=3), cleaned)


RECORDS: list[Record] = [accepted("0"), accepted("1"), started("0"), ended("0"), started("1")]


def test_gives_back_what_was_written(tmp_path: Path) -> None:
    first = Journal(str(tmp_path / "j"))
    first.rewrite(0, [])
    for record in RECORDS:
        first.add(record)
    first.flush()
    second = Journal(str(tmp_path / "j"))
    assert [r for r in second.found if not isinstance(r, Begun)] == RECORDS
    assert second.instance == first.instance
    assert not second.rebooted


def test_what_is_not_flushed_is_not_there(tmp_path: Path) -> None:
    first = Journal(str(tmp_path / "j"))
    first.rewrite(0, [])
    first.add(RECORDS[0])
    assert not any(isinstance(r, Accepted) for r in Journal(str(tmp_path / "j")).found)


@given(st.data())
def test_a_torn_end_is_no_damage(data: st.DataObject) -> None:
    whole = b"".join(map(pack, RECORDS))
    cut = data.draw(st.integers(0, len(whole)))
    records, damaged, end = unpack(whole[:cut])
    assert records == RECORDS[: len(records)]
    assert not damaged
    assert whole[:end] == b"".join(map(pack, records))


@given(st.data())
def test_a_flipped_bit_costs_one_record_and_is_seen(data: st.DataObject) -> None:
    whole = bytearray(b"".join(map(pack, RECORDS)))
    at = data.draw(st.integers(0, len(whole) - len(pack(RECORDS[-1])) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    records, damaged, _ = unpack(bytes(whole))
    assert damaged
    assert len(records) == len(RECORDS) - 1
    assert all(record in RECORDS for record in records)


@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(data: bytes) -> None:
    records, _, end = unpack(data)
    assert records == []
    assert 0 <= end <= len(data)


def test_after_a_torn_end_it_goes_on(tmp_path: Path) -> None:
    first = Journal(str(tmp_path / "j"))
    first.rewrite(0, RECORDS[:2])
    path = tmp_path / "j" / "journal"
    path.write_bytes(path.read_bytes() + pack(RECORDS[2])[:-3])
    second = Journal(str(tmp_path / "j"))
    second.add(RECORDS[4])
    second.flush()
    third = Journal(str(tmp_path / "j"))
    assert third.instance == first.instance
    assert [r for r in third.found if not isinstance(r, Begun)] == [*RECORDS[:2], RECORDS[4]]


@pytest.mark.parametrize("damage", [b"", b"\0" * 4096, b"not a journal"])
def test_damage_is_set_aside_under_a_new_instance(tmp_path: Path, damage: bytes) -> None:
    first = Journal(str(tmp_path / "j"))
    first.rewrite(0, RECORDS)
    path = tmp_path / "j" / "journal"
    data = bytearray(path.read_bytes())
    if damage:
        data[: len(damage)] = damage
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)
    second = Journal(str(tmp_path / "j"))
    assert second.instance != first.instance
    assert [p.read_bytes() for p in (tmp_path / "j").glob("damaged-*")] == [bytes(data)]


def test_what_waits_to_be_written_is_no_full_disk(tmp_path: Path) -> None:
    """An agent may order much at once, and plans may be large: where there is room, nothing is tight."""
    journal = Journal(str(tmp_path / "j"))
    plans = [process_plan("/node", f"job-0-{at}-1", "x" * 20_000) for at in range(200)]
    for plan in plans:
        assert not journal.tight
        journal.add(Accepted(plan))
    journal.flush()
    assert not journal.tight
    found = Journal(str(tmp_path / "j")).found
    assert [record.plan for record in found if isinstance(record, Accepted)] == plans


def test_knows_a_reboot(tmp_path: Path) -> None:
    first = Journal(str(tmp_path / "j"))
    first.rewrite(0, RECORDS)
    path = tmp_path / "j" / "journal"
    path.write_bytes(b"".join(map(pack, [Begun(first.instance, "another boot", 0), *RECORDS])))
    second = Journal(str(tmp_path / "j"))
    assert second.rebooted
    assert second.instance == first.instance


def test_counts_starts_over_a_rewrite(tmp_path: Path) -> None:
    """The evidence of the next start is found by this count: records that were kept are not counted again."""
    first = Journal(str(tmp_path / "j"))
    first.rewrite(4, RECORDS)
    assert Replay(Journal(str(tmp_path / "j")).found).turn == 4
    first.add(started("2"))
    first.flush()
    assert Replay(Journal(str(tmp_path / "j")).found).turn == 5


def test_replay_keeps_the_order_of_acceptance() -> None:
    replay = Replay(RECORDS)
    assert list(replay.attempts) == ["job-0-0-1", "job-0-1-1"]
    first, second = replay.attempts.values()
    assert first.update is not None
    assert first.update.exit_code == 3
    assert second.running
    assert second.now().state == "running"


def test_replay_of_a_starter() -> None:
    records = [accepted("0"), started("0", starter=True)]
    attempt = Replay(records).attempts["job-0-0-1"]
    assert attempt.starting
    assert attempt.now().state == "preparing"
    attempt = Replay([*records, Confirmed("job-0-0-1", 88, 9)]).attempts["job-0-0-1"]
    assert (attempt.starting, attempt.pid) == (False, 88)


def test_what_is_over_leaves() -> None:
    done = [accepted("0"), started("0"), ended("0", cleaned=False)]
    forgotten = Forgotten(("job-0-0-1",))
    assert "job-0-0-1" in Replay([*done, forgotten]).attempts
    assert Replay([*done, forgotten, Cleaned("job-0-0-1")]).attempts == {}
    assert Replay([*done, Cleaned("job-0-0-1"), forgotten]).attempts == {}


@pytest.mark.parametrize(
    "records",
    [
        [accepted("0")],
        [accepted("0"), started("0"), Stopping("job-0-0-1", "cancelled", 5)],
        [accepted("0"), started("0", starter=True), Confirmed("job-0-0-1", 88, 9)],
        [accepted("0"), started("0"), ended("0", cleaned=False)],
        [accepted("0"), started("0"), ended("0", cleaned=False), Forgotten(("job-0-0-1",))],
        [accepted("0"), started("0"), ended("0")],
    ],
)
def test_a_rewrite_says_the_same(records: list[Record]) -> None:
    before = Replay(records).attempts["job-0-0-1"]
    after = Replay(before.records()).attempts["job-0-0-1"]
    names = ("pid", "starting", "stop", "update", "cleaned", "forgotten")
    assert [getattr(after, n) for n in names if before.update is None or n in names[3:]] == [
        getattr(before, n) for n in names if before.update is None or n in names[3:]
    ]


def test_a_journal_is_gone_once_it_is_removed_or_another_stands_in_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "j"
    first = Journal(str(folder))
    assert not first.gone
    folder.rename(tmp_path / "away")
    assert not first.gone  # it may come back
    second = Journal(str(folder))
    assert first.gone
    assert not second.gone
    (folder / "journal").unlink()
    assert second.gone


@pytest.mark.containers  # mounts a filesystem: needs the same rights
def test_a_full_disk_leaves_room_for_ends(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk", "4m") as disk:
        folder = disk.folder / "j"
        first = Journal(str(folder))
        first.rewrite(0, [])
        disk.fill()
        assert (folder / "journal").stat().st_size < 4096  # room is taken, nothing is written
        for index in range(2_000):
            first.add(ended(str(index)))
            first.flush()
        second = Journal(str(folder))
        assert len(second.found) == 2_000 + 2
        with pytest.raises(OSError, match="No space left"):
            second.rewrite(0, [ended(f"{index}-{'x' * 1000}") for index in range(4_000)])
        second.add(ended("2000"))
        second.flush()
        assert len(Journal(str(folder)).found) == 2_001 + 2
