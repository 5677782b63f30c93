"""What only an engine can get wrong: other people's containers, and what an agent finds after its death."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.conformance.runtimes.docker_case import DockerNode, DockerPlans
from tests.conformance.runtimes.node import eventually

from towline.agent.docker.client import Engine, Seen
from towline.runtime.docker.spec import container_name, labels

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module", params=["docker", "podman"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DockerPlans:
    return DockerPlans(request.param, tmp_path_factory.mktemp(request.param))


@contextlib.asynccontextmanager
async def engine_of(plans: DockerPlans) -> AsyncIterator[Engine]:
    engine = Engine(plans.url, plans.traits.api)
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
def node(plans: DockerPlans) -> Iterator[DockerNode]:
    made = DockerNode(plans)
    yield made
    made.close()


def test_only_what_carries_our_label_is_removed(node: DockerNode, plans: DockerPlans) -> None:
    """A container of somebody else, one of another node, and one of ours that nobody knows any more."""
    mine = node.name
    config = {
        "Image": plans.image_id, "Cmd": ["sleep", "3600"],
        "HostConfig": {"NetworkMode": "none", "Ulimits": plans.ulimits},
    }  # fmt: skip
    strangers = {"somebody": {}, "other-node": labels("other", "job-0-0-1")}
    unknown = container_name(mine, "gone-0-0-1")

    async def make() -> None:
        async with engine_of(plans) as engine:
            for name, tags in [*strangers.items(), (unknown, labels(mine, "gone-0-0-1"))]:
                await engine.create(name, {**config, "Labels": tags})
                await engine.start(name)

    async def look() -> list[Seen | None]:
        async with engine_of(plans) as engine:
            return [await engine.inspect(name) for name in (unknown, *strangers)]

    async def remove() -> None:
        async with engine_of(plans) as engine:
            for name in strangers:
                await engine.remove(name)

    asyncio.run(make())
    try:
        node.connect()
        eventually(lambda: asyncio.run(look())[0] is None, "the unknown one stays")
        assert [seen is not None and seen.running for seen in asyncio.run(look())[1:]] == [True, True]
    finally:
        asyncio.run(remove())


def test_what_ended_while_nobody_looked_is_told_with_all_its_output(node: DockerNode) -> None:
    node.connect()
    wait = "echo first >&2; while [ ! -e $TOW_OUT/go ]; do sleep 0.02; done"
    plan = node.plan(f"head -c 300000 /dev/urandom > $TOW_OUT/copy; {wait}; cat $TOW_OUT/copy; exit 5")
    node.run(plan)
    node.printed(plan, b"first", "stderr")
    node.kill("supervisor")
    Path(plan.out, "go").touch()
    eventually(lambda: not node.processes_of(plan), "it does not end")
    update = node.ended(plan)
    assert (update.state, update.reason, update.exit_code) == ("finished", "exited", 5)
    assert node.output(plan) == Path(plan.out, "copy").read_bytes()
    assert node.output(plan, "stderr") == b"first\n"


def test_too_much_memory_is_told_as_that(node: DockerNode) -> None:
    node.connect()
    update = node.result("tail /dev/zero; exit $?", memory_bytes=32 << 20)
    assert update.reason == "oom_killed"
    assert update.message is not None
    assert "limit 32 MiB" in update.message


def test_a_container_that_somebody_removed_is_lost(node: DockerNode, plans: DockerPlans) -> None:
    node.connect()
    plan = node.plan("echo here; sleep 3600")
    node.run(plan)
    node.printed(plan, b"here")

    async def remove() -> None:
        async with engine_of(plans) as engine:
            await engine.remove(container_name(node.name, plan.attempt))

    asyncio.run(remove())
    update = node.ended(plan)
    assert (update.state, update.reason) in (("lost", "supervision_lost"), ("finished", "exited"))
