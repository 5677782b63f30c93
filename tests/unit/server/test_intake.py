"""Submissions and their keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.server.conftest import Rig

from towline.errors import Conflict, InvalidDocument, OperatorError, RequestError, StoreError, Unavailable
from towline.model.job import JobSpec
from towline.server import intake as intake_module
from towline.server.intake import ALPHABET, Intake, new_job_id


@pytest.fixture
def intake(rig: Rig) -> Intake:
    return Intake(rig.store, rig.leader, "default", "default", lambda: ["/usr/share"])


def body(name: str = "job", **extra: Any) -> bytes:
    task = {"runtime": "process", "command": ["true"]}
    document = {"name": name, "tasks": {"a": task}}
    return msgspec.json.encode({"document": document, "base_dir": "/work", **extra})


async def test_a_key_makes_one_job_however_often_it_comes(rig: Rig, intake: Intake) -> None:
    answers = await asyncio.gather(*(intake.submit(body(), "k") for _ in range(5)))
    assert len({job for job, _ in answers}) == 1
    assert [new for _, new in answers].count(True) == 1
    assert len(await rig.store.jobs("default", None, 10)) == 1


async def test_a_caller_that_goes_away_takes_nobody_along(intake: Intake) -> None:
    callers = [asyncio.create_task(intake.submit(body(), "k")) for _ in range(3)]
    await asyncio.sleep(0)
    callers[1].cancel()
    assert (await callers[0])[0] == (await callers[2])[0]
    assert callers[1].cancelled()


async def test_spaces_and_escapes_make_no_difference_and_content_does(intake: Intake) -> None:
    first = await intake.submit(body(), "k")
    spaced = msgspec.json.format(body(), indent=4).replace(b"job", b"\\u006aob")
    assert await intake.submit(spaced, "k") == (first[0], False)
    with pytest.raises(Conflict):
        await intake.submit(body("other"), "k")


async def test_without_a_key_every_request_is_a_job(rig: Rig, intake: Intake) -> None:
    await intake.submit(body(), None)
    await intake.submit(body(), None)
    assert len(await rig.store.jobs("default", None, 10)) == 2


async def test_a_repeat_after_a_crash_before_the_commit_creates_the_reserved_job(
    rig: Rig, intake: Intake
) -> None:
    rig.store.before = StoreError("the machine went down")
    with pytest.raises(Unavailable):
        await intake.submit(body(), "k")
    await rig.leader.ready.wait()
    assert await rig.store.jobs("default", None, 10) == []
    job, _ = await intake.submit(body(), "k")
    assert [row.id for row in await rig.store.jobs("default", None, 10)] == [job]
    assert (await intake.submit(body(), "k"))[0] == job


async def test_a_repeat_after_a_commit_of_unknown_outcome_finds_the_job(rig: Rig, intake: Intake) -> None:
    rig.store.after = StoreError("the answer got lost")
    with pytest.raises(Unavailable):
        await intake.submit(body(), "k")
    await rig.leader.ready.wait()
    job, new = await intake.submit(body(), "k")
    assert not new
    assert [row.id for row in await rig.store.jobs("default", None, 10)] == [job]


async def test_a_job_that_came_to_the_wrong_pool_leaves_its_key_to_the_right_one(rig: Rig) -> None:
    """A server that has not heard of a new pool yet sends its jobs to the home's leader, which knows it."""
    document = {"name": "j", "pool": "new", "tasks": {"a": {"runtime": "process", "command": ["true"]}}}
    sent = msgspec.json.encode({"document": document})
    home, right = (
        Intake(rig.store, rig.leader, "default", pool, pools=lambda: ["default", "new"])
        for pool in ("default", "new")
    )
    with pytest.raises(Unavailable, match="just changed"):
        await home.submit(sent, "k")
    assert await rig.store.reserved("default", "k") is None
    job, new = await right.submit(sent, "k")
    assert new and [row.id for row in await rig.store.jobs("default", None, 10)] == [job]


async def test_a_refused_request_frees_its_key(
    rig: Rig, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    from towline.core.pool import submission

    def refuse(pool: object, command: object) -> None:
        raise RequestError("the pool is closed")

    with monkeypatch.context() as patched:
        patched.setattr(submission, "submit", refuse)
        with pytest.raises(RequestError, match="closed"):
            await intake.submit(body(), "k")
    await intake.submit(body("another"), "k")


async def test_an_error_on_record_is_the_answer(rig: Rig, intake: Intake) -> None:
    await intake.submit(body(), "k")
    await rig.store.answer("default", "k", "set aside")
    with pytest.raises(OperatorError, match="set aside"):
        await intake.submit(body(), "k")


async def test_large_documents_are_read_beside_the_loop(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "LARGE_BYTES", 10)
    assert (await intake.submit(body(), "k"))[1]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"{", "body"),
        (b'{"document": {}, "surplus": 1}', "surplus"),
        (b'{"document": []}', "mapping"),
        (b'{"document": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (body(params={"year": 1}), "year"),
    ],
)
async def test_what_is_wrong_is_named(intake: Intake, sent: bytes, words: str) -> None:
    with pytest.raises(InvalidDocument, match=words):
        await intake.submit(sent, "k")


async def test_keys_have_a_length(intake: Intake) -> None:
    for key in ("", "k" * 1000):
        with pytest.raises(RequestError, match="Idempotency-Key"):
            await intake.submit(body(), key)


def test_job_ids_are_of_characters_that_cannot_be_confused() -> None:
    ids = {new_job_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(job) == 10 and set(job) <= set(ALPHABET) for job in ids)
    assert not set("il1o0") & set(ALPHABET)


def mounting(base_dir: Path, *sources: str, **fields: Any) -> bytes:
    mounts = [{"source": source, "target": f"/m{at}"} for at, source in enumerate(sources)]
    task = {"image": "oci:./i:1", "command": ["true"]}
    tasks = {"first": task, "a": {**task, "mounts": mounts, **fields}}
    return msgspec.json.encode({"document": {"name": "j", "tasks": tasks}, "base_dir": str(base_dir)})


async def test_mounts_that_this_machine_would_refuse_are_refused_at_once(
    rig: Rig, intake: Intake, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/etc")
    sources = ("/etc", "./link", "./link/ssl", "./none", ".", "/usr/share")
    with pytest.raises(InvalidDocument) as raised:
        await intake.submit(mounting(tmp_path, *sources), "k")
    problems = raised.value.problems
    assert [problem.where for problem in problems] == [f"tasks.a.mounts[{at}].source" for at in range(4)]
    assert problems[0].message.startswith("'/etc' cannot be mounted: it is outside of the allowed folders")
    assert "(it leads to /etc)" in problems[1].message
    assert "TOWLINE_ALLOWED_MOUNTS" in problems[0].remedy
    assert "there is no" in problems[3].message
    assert await rig.store.jobs("default", None, 10) == []
    await intake.submit(mounting(tmp_path, ".", "/usr/share"), "k")


async def test_a_mount_may_be_made_by_an_earlier_task(intake: Intake, tmp_path: Path) -> None:
    await intake.submit(mounting(tmp_path, "./made-by-first", needs="first"), "k")


async def test_a_repeat_does_not_look_at_mounts_again(intake: Intake, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    job, _ = await intake.submit(mounting(tmp_path, "./data"), "k")
    (tmp_path / "data").rmdir()
    assert await intake.submit(mounting(tmp_path, "./data"), "k") == (job, False)


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        (b'"name":', b'"name":"other","name":', "name"),
        (b'"a":', b'"a":{},"a":', "a"),
        (b'"base_dir":', b'"base_dir":null,"base_dir":', "base_dir"),
    ],
)
async def test_a_key_that_stands_twice_is_refused(
    intake: Intake, before: bytes, after: bytes, key: str
) -> None:
    with pytest.raises(InvalidDocument, match=f"the key '{key}' is there twice"):
        await intake.submit(body().replace(before, after), "k")


@pytest.mark.parametrize("base_dir", ["work", "./work", "", "/a\0b"])
async def test_base_dir_is_absolute(intake: Intake, base_dir: str) -> None:
    with pytest.raises(InvalidDocument, match=r"base_dir: .* is no absolute path"):
        await intake.submit(body(base_dir=base_dir), "k")


async def test_long_numbers_are_told_as_what_they_are(intake: Intake) -> None:
    for number in (b"1" * 5000, b"1e999"):
        with pytest.raises(InvalidDocument):
            await intake.submit(body(params={"p": 7}).replace(b"7", number), "k")


async def test_secrets_of_which_another_leader_hears_first_are_read_anew(rig: Rig) -> None:
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1

    def known(namespace: str, spec: JobSpec) -> None:
        return None

    task = {"runtime": "process", "command": ["true"], "secrets": {"KEY": "key"}}
    uses = msgspec.json.encode({"document": {"name": "j", "tasks": {"a": task}}})
    for behind, wanted in ((False, 0), (True, 1)):
        made = Intake(
            rig.store, rig.leader, "default", "default", check_secrets=known, catch_up=look, behind=behind
        )
        await made.submit(uses, None)
        await made.submit(body(), None)
        assert looks == wanted
