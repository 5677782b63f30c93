"""``tow pool``: what is known of a pool, also where its leader does not answer; and what --pool may name."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import cast

import pytest
from typer.testing import CliRunner

import towline.client
from towline.cli.arguments import into_pool
from towline.cli.main import commands
from towline.client import Submission
from towline.client.cluster.nodes import Nodes
from towline.errors import RequestError
from towline.model.document import load_tree
from towline.model.views import PoolView

TREE = {"name": "j", "pool": "west", "tasks": {"t": {"runtime": "process", "command": ["true"]}}}
LED = PoolView(
    pool="default", leader="tow1", address="tow1.lan:7443", term=3, since="2026-01-31T12:00:00.000Z", nodes=2,
    cpu=8, cpu_free=2.5, memory_bytes=4 * 2**30, memory_free_bytes=2**30, gpus=1, jobs=4, active=3, queued=7,
)  # fmt: skip
SILENT = PoolView(pool="gpu", leader="tow2", term=5)


class Server:
    """Has two pools."""

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def pools(self) -> list[PoolView]:
        return [LED, SILENT]


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(**_: object) -> Server:
        return Server()

    monkeypatch.setattr(towline.client, "connect", connect)


def tow(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(commands("pool"), ["pool", *arguments])
    assert done.exit_code == status, done.output
    return done.stdout if status == 0 else done.stderr


@pytest.mark.parametrize("word", ["ls", "list"])
def test_a_pool_whose_leader_does_not_answer_has_dashes(word: str) -> None:
    header, led, silent = tow(word).splitlines()
    assert header.split()[:4] == ["POOL", "LEADER", "TERM", "NODES"]
    assert led.split() == ["default", "tow1", "3", "2", "2.5/8", "1", "GiB/4", "GiB", "1", "4", "3", "7"]
    assert silent.split() == ["gpu", "tow2", "5", *"-------"]


def test_all_that_is_known_is_in_the_document() -> None:
    first, second = json.loads(tow("ls", "--json"))["pools"]
    assert (first["cpu_free"], first["queued"]) == (2.5, 7)
    assert (second["leader"], second["nodes"]) == ("tow2", None)
    assert json.loads(tow("show", "gpu", "--json")) == second
    shown = dict(line.split(maxsplit=1) for line in tow("show", "gpu").splitlines())
    assert (shown["pool:"], shown["term:"], shown["jobs:"], shown["address:"]) == ("gpu", "5", "-", "-")


def test_a_pool_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert tow("show", "gqu", status=2) == "error: There is no pool 'gqu': there are default, gpu.\n"


@pytest.mark.parametrize(
    ("given", "pool"),
    [("gpu", "gpu"), ("any", "any"), ("east,west", ["east", "west"]), ("east, west,east", ["east", "west"])],
)
def test_a_pool_on_the_command_line_stands_in_place_of_the_files(given: str, pool: object) -> None:
    sent = into_pool(Submission.of_tree(TREE), given)
    assert sent.document == {**TREE, "pool": pool}
    names = (pool,) if isinstance(pool, str) else tuple(cast("list[str]", pool))
    assert load_tree(sent.document).pool == names
    assert TREE["pool"] == "west"
    assert into_pool(Submission.of_tree(TREE), None).document == TREE


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "pool is '', but a pool's name is"),
        ("a b", "'a b'"),
        ("cluster", "neither any nor cluster"),
        ("any,gpu", "any beside other pools"),
        ("east,", "pool is ''"),
    ],
)
def test_what_can_be_no_pool_is_refused_before_it_is_sent(given: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        into_pool(Submission.of_tree(TREE), given)


def test_a_program_names_at_least_one_pool() -> None:
    with pytest.raises(RequestError, match="names none"):
        Submission.of_tree(TREE).into([])


async def test_a_node_is_looked_for_in_its_pool() -> None:
    asked: list[object] = []

    async def request(*words: object, **more: object) -> bytes:
        asked.append((*words, more))
        return b""

    nodes = Nodes(cast("towline.client.Client", SimpleNamespace(request=request)), "gpu")
    await nodes.forget("n7")
    await nodes.forget("n7", force=True)
    assert asked == [
        ("DELETE", "/v1/nodes/n7", {"query": {"force": None, "pool": "gpu"}}),
        ("DELETE", "/v1/nodes/n7", {"query": {"force": True, "pool": "gpu"}}),
    ]
