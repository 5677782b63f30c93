"""Images that an Engine pulls from a real registry: by tag and digest, with a login, and what goes wrong."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.containers import busybox_image
from tests.engines import engine
from tests.registry import PASSWORD, USER, Registry, StallingRegistry, closed_registry, registry

from towline.agent.docker.client import Engine
from towline.agent.docker.images import EngineImages
from towline.images import ImageFailed
from towline.images.settings import ImageSettings
from towline.runtime.docker.probe import Found

__all__ = ["busybox_image", "closed_registry", "registry"]

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module", params=["docker", "podman"])
def found(request: pytest.FixtureRequest) -> Found:
    return engine(request.param)


@pytest_asyncio.fixture
async def client(found: Found) -> AsyncIterator[Engine]:
    assert found.url is not None
    made = Engine(found.url, found.traits.api)
    yield made
    await made.close()


@pytest.fixture
def images(client: Engine, found: Found) -> EngineImages:
    return EngineImages(client, ImageSettings(pull_timeout_s=20), found.traits.podman)


def here(name: str) -> str:
    return name.replace("localhost:", "127.0.0.1:")


async def failure(images: EngineImages, name: str, **how: Any) -> tuple[str, str]:
    with pytest.raises(ImageFailed) as caught:
        await images.ensure(name, None, **how)
    return caught.value.reason, str(caught.value)


async def test_one_pull_by_tag_or_digest_for_all_who_wait(
    images: EngineImages,
    client: Engine,
    registry: Registry,
    busybox_image: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = here(registry.push(busybox_image, f"many-{os.urandom(4).hex()}:1"))
    pulls: list[str] = []
    pull = client.pull

    def counted(*arguments: Any) -> Any:
        pulls.append(arguments[1])
        return pull(*arguments)

    monkeypatch.setattr(client, "pull", counted)
    found = await asyncio.gather(*(images.ensure(name, None) for _ in range(5)))
    assert pulls == ["1"]
    assert {image.id for image in found} == {found[0].id}
    digest = found[0].digest
    assert digest != found[0].id
    again = await images.ensure(f"{name.removesuffix(':1')}@{digest}", None)
    assert (again.id, pulls) == (found[0].id, ["1"])
    pinned = await images.ensure(f"{name.removesuffix(':1')}:moved-away", None, digest)
    assert (pinned.id, pulls, images.pulls) == (found[0].id, ["1"], {})


async def test_a_login_is_what_a_closed_registry_wants(
    images: EngineImages, closed_registry: Registry, busybox_image: str
) -> None:
    name = here(closed_registry.push(busybox_image, f"private-{os.urandom(4).hex()}:1"))
    host = here(closed_registry.host)
    reason, said = await failure(images, name)
    assert reason == "image_auth"
    assert "tow registry login" in said
    reason, said = await failure(images, name, login=(host, USER, "hunter2hunter2"))
    assert reason == "image_auth"
    assert "hunter2" not in said
    image = await images.ensure(name, None, login=(host, USER, PASSWORD))
    assert image.digest.startswith("sha256:")


async def test_what_is_not_there_is_not_found(
    images: EngineImages, registry: Registry, busybox_image: str
) -> None:
    name = here(registry.push(busybox_image, "there:1"))
    gone = name.removesuffix(":1")
    for missing in (f"{gone}:2", f"{here(registry.host)}/nowhere:1", f"{gone}@sha256:{'0' * 64}"):
        reason, said = await failure(images, missing)
        assert reason == "image_not_found", said
    assert (await failure(images, "127.0.0.1:1/x:1"))[0] == "image_pull_timeout"


async def test_a_registry_that_stalls_is_cut_off(client: Engine, found: Found, busybox_image: str) -> None:
    stalling = StallingRegistry.of_fresh_layer(busybox_image, 3_000_000, 1_000_000)
    images = EngineImages(client, ImageSettings(pull_timeout_s=2), found.traits.podman)
    try:
        pulling = asyncio.ensure_future(failure(images, f"{here(stalling.host)}/slow:1"))
        await asyncio.to_thread(stalling.stalled.wait, 60)
        (progress,) = images.pulls.values()
        assert progress.name == f"{here(stalling.host)}/slow:1"
        reason, said = await pulling
    finally:
        stalling.close()
    assert reason == "image_pull_timeout", said
    assert "has sent nothing" in said
    assert images.pulls == {}
