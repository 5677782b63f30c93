"""Stored secrets: what may be set, and who gets the values."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from towline.core.rows import SpecRow
from towline.errors import InvalidDocument, NotFound, RequestError, StoreError
from towline.model.job import JobSpec, TaskSpec
from towline.server.link import task_info
from towline.server.vault import Vault
from towline.server.vault.logins import Logins
from towline.server.vault.secrets import MAX_BYTES, Secrets
from towline.store.memory import MemoryStore

VALUE = b"correct horse\nbattery \xff staple"


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault(MemoryStore(), tmp_path / "vault.key", lambda: 77)


@pytest.fixture
def secrets(vault: Vault) -> Secrets:
    return Secrets(vault, "default")


def using(**wanted: str) -> JobSpec:
    return JobSpec(name="job", tasks={"a": TaskSpec(runtime="process", command=("true",), secrets=wanted)})


async def test_tasks_get_the_latest_values_also_from_the_next_server(vault: Vault, secrets: Secrets) -> None:
    await secrets.put("my-token", b"old")
    await secrets.put("my-token", VALUE)
    assert secrets.values_for("default", {"TOKEN": "my-token", "OTHER": "gone"}) == {"TOKEN": VALUE}
    again = Secrets(vault, "default")
    assert again.values_for("default", {"TOKEN": "my-token"}) == {}
    await again.load()
    assert again.values_for("default", {"TOKEN": "my-token"}) == {"TOKEN": VALUE}
    assert [(entry.name, entry.version) for entry in await again.list()] == [("my-token", 2)]


async def test_what_was_removed_nobody_gets(secrets: Secrets) -> None:
    await secrets.put("my-token", VALUE)
    await secrets.delete("my-token")
    assert secrets.values_for("default", {"TOKEN": "my-token"}) == {}
    assert await secrets.list() == []
    with pytest.raises(NotFound, match="There is no secret my-token: `tow secret ls` shows"):
        await secrets.delete("my-token")


async def test_secrets_of_another_namespace_and_logins_are_no_secrets(vault: Vault, secrets: Secrets) -> None:
    await vault.put("other", "secret", "my-token", VALUE)
    await vault.put("default", "registry", "my-token", VALUE, user="ada")
    await secrets.load()
    assert secrets.values_for("default", {"TOKEN": "my-token"}) == {}


async def test_one_that_does_not_open_counts_as_not_stored(
    vault: Vault, secrets: Secrets, tmp_path: Path
) -> None:
    await secrets.put("a", VALUE)
    (tmp_path / "vault.key").rename(tmp_path / "lost.key")
    again = Secrets(Vault(vault._store, tmp_path / "vault.key"), "default")
    await again.load()
    assert again.values_for("default", {"A": "a"}) == {}


async def test_every_use_of_what_is_not_stored_is_a_problem(secrets: Secrets) -> None:
    await secrets.put("here", VALUE)
    secrets.check(using(A="here"))
    with pytest.raises(InvalidDocument) as refused:
        secrets.check(using(A="here", B="gone", C="never"))
    assert [(p.where, p.message, p.remedy) for p in refused.value.problems] == [
        ("tasks.a.secrets.B", "there is no secret 'gone'", "store it first: tow secret set gone"),
        ("tasks.a.secrets.C", "there is no secret 'never'", "store it first: tow secret set never"),
    ]


async def test_an_order_for_an_agent_does_not_show_values(secrets: Secrets) -> None:
    await secrets.put("my-token", b"correct horse")
    row = SpecRow(job="j1", spec=using(TOKEN="my-token"), base_dir=None)
    info = task_info(
        row, 0, None, ("ghcr.io", "ada", "pass-word"), secrets.values_for("default", {"TOKEN": "my-token"})
    )
    assert info.secrets == {"TOKEN": b"correct horse"}
    for shown in (repr(info), str([info]), str(info.__rich_repr__())):
        assert "correct" not in shown
        assert "pass-word" not in shown


async def test_sizes(secrets: Secrets) -> None:
    await secrets.put("most", b"x" * MAX_BYTES)
    with pytest.raises(RequestError, match="65537 bytes: 65536"):
        await secrets.put("more", b"x" * (MAX_BYTES + 1))
    with pytest.raises(RequestError, match="empty"):
        await secrets.put("none", b"")
    assert [entry.name for entry in await secrets.list()] == ["most"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "x" * 64, "a\n"])
async def test_names(secrets: Secrets, name: str) -> None:
    with pytest.raises(RequestError, match="a secret's name is 1 to 63"):
        await secrets.put(name, VALUE)
    with pytest.raises(RequestError, match="a secret's name is 1 to 63"):
        await secrets.delete(name)


async def test_what_is_set_while_they_are_read_stands(
    vault: Vault, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    await secrets.put("key", b"old")
    await secrets.put("gone", b"old")
    held, late, get = asyncio.Event(), asyncio.Event(), vault.get

    async def slow(namespace: str, kind: str, name: str) -> bytes:
        value = await get(namespace, kind, name)
        if name == "key":
            held.set()
            await late.wait()
        return value

    monkeypatch.setattr(vault, "get", slow)
    reading = asyncio.create_task(secrets.load())
    await held.wait()
    await secrets.put("key", b"new")
    await secrets.delete("gone")
    late.set()
    await reading
    assert secrets.values_for("default", {"a": "key", "b": "gone"}) == {"a": b"new"}


@pytest.mark.parametrize("kind", ["secret", "registry"])
async def test_a_store_that_fails_in_the_middle_takes_no_value_away(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Else nobody would have it on this server until something else is set: what has changed is read once."""
    secrets, logins = Secrets(vault, "default"), Logins(vault, "default")
    await secrets.put("my-token", VALUE)
    await logins.put("ghcr.io", "ada", "pass")

    async def fails(*_: object) -> None:
        raise StoreError("it does not answer")

    held = secrets if kind == "secret" else logins
    with monkeypatch.context() as away:
        away.setattr(vault._store, "seal_get", fails)
        with pytest.raises(StoreError):
            await held.load()
    assert secrets.values_for("default", {"TOKEN": "my-token"}) == {"TOKEN": VALUE}
    assert logins.login_for("ghcr.io/a/b") == ("ghcr.io", "ada", "pass")
