"""Room for images: the least recently used go first, never one in use, and nothing is left half done."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.images import Layout, archive, file
from tests.registry import Registry
from tests.small_disk import SmallDisk

from towline.errors import NotFound, RequestError
from towline.images import Image, ImageFailed, ImageStore
from towline.images.settings import ImageSettings
from towline.model.states import Reason

pytestmark = pytest.mark.containers

KIB = 1024
SIZE = 100 * KIB


async def pull(store: ImageStore, made: Layout, registry: Registry, name: str) -> Image:
    """An image with a layer of its own (about 200 KiB with its copy) over one that all share."""
    layers = [archive(file("base", b"base" * 256)), archive(file(name, os.urandom(SIZE)))]
    reference = registry.push(made.tag(made.image(layers), name), f"room:{name}")
    return await store.ensure(reference, None)


def names(store: ImageStore) -> list[str]:
    """Tags of the images that the store has, in order."""
    records = (json.loads(path.read_bytes()) for path in (store.root / "records").iterdir())
    return sorted(name.rpartition(":")[2] for record in records for name in record["names"])


def used_at(store: ImageStore, image: Image, at_s: float) -> None:
    os.utime(store.root / "records" / f"{image.digest.replace(':', '-')}.json", (at_s, at_s))


@pytest.fixture
async def three(store: ImageStore, made: Layout, registry: Registry) -> dict[str, Image]:
    """Images a, b and c, used in this order, long ago; the store is to be opened anew."""
    images = {name: await pull(store, made, registry, name) for name in "abc"}
    await settled(store)
    for at, image in enumerate(images.values()):
        used_at(store, image, 1_000_000 + at)
    return images


async def settled(store: ImageStore) -> None:
    await asyncio.gather(*store._beside.tasks)


async def test_the_least_recently_used_go_first_and_copies_before_images(
    store: ImageStore, three: dict[str, Image]
) -> None:
    store = ImageStore(store.root)
    total = (await store.collect(10**12)).left_bytes
    assert total > 6 * SIZE
    planned = await store.collect(total - 1, dry_run=True)
    assert (planned.removed, names(store)) == ((), ["a", "b", "c"])
    done = await store.collect(3 * SIZE + 3 * KIB)
    assert done.removed == ()
    assert not list((store.root / "blobs/sha256").iterdir())
    done = await store.collect(2 * SIZE + 3 * KIB)
    assert [name.rpartition(":")[2] for name in done.removed] == ["a"]
    assert names(store) == ["b", "c"]
    assert not three["a"].rootfs.exists()
    assert (three["b"].rootfs / "base").exists(), "a layer that others share stays"
    assert len(list((store.root / "layers").iterdir())) == 3
    await store.collect(0)
    for folder in ("layers", "unpacked", "records", "partial"):
        assert list((store.root / folder).iterdir()) == []


async def test_what_is_in_use_is_never_collected(store: ImageStore, three: dict[str, Image]) -> None:
    store = ImageStore(store.root)
    store.in_use = lambda: {three["a"].digest: 2}
    done = await store.collect(0)
    assert len(done.removed) == 2
    assert names(store) == ["a"]
    assert (three["a"].rootfs / "a").stat().st_size == SIZE
    with pytest.raises(RequestError, match="in use by 2 attempts"):
        await store.remove(three["a"].digest)


async def test_a_root_whose_record_is_lost_stays_as_long_as_it_is_in_use(
    store: ImageStore, three: dict[str, Image]
) -> None:
    image = three["a"]
    (store.root / "records" / f"{image.digest.replace(':', '-')}.json").unlink()
    store = ImageStore(store.root)
    store.in_use = lambda: {image.digest: 1}
    await store.collect(0)
    assert (image.rootfs / "a").exists()
    store.in_use = dict
    await store.collect(0)
    assert not image.rootfs.exists()


async def test_use_is_remembered_over_a_restart(
    store: ImageStore, three: dict[str, Image], registry: Registry
) -> None:
    store = ImageStore(store.root)
    await store.ensure(f"{registry.host}/room@{three['a'].digest}", None)
    store = ImageStore(store.root)
    await store.collect(2 * SIZE + 3 * KIB)
    assert names(store) == ["a", "c"]


async def test_a_budget_is_kept_by_itself(
    tmp_path: Path, made: Layout, registry: Registry, three: dict[str, Image]
) -> None:
    store = ImageStore(tmp_path / "images", ImageSettings(max_bytes=2 * SIZE + 50 * KIB))
    await pull(store, made, registry, "d")
    await settled(store)
    assert names(store) == ["c", "d"]


async def test_an_image_is_removed_by_name_and_by_the_beginning_of_its_digest(
    store: ImageStore, three: dict[str, Image], registry: Registry
) -> None:
    store = ImageStore(store.root)
    done = await store.remove(f"{registry.host}/room:a")
    assert done.freed_bytes > 2 * SIZE
    await store.remove(three["b"].digest.removeprefix("sha256:")[:12])
    assert names(store) == ["c"]
    assert not store.is_ready(three["a"].digest)
    with pytest.raises(NotFound, match="tow image ls"):
        await store.remove(f"{registry.host}/room:a")
    with pytest.raises(RequestError):
        await store.remove("Not A Name")


async def test_an_image_that_was_removed_is_pulled_again(
    store: ImageStore, three: dict[str, Image], registry: Registry
) -> None:
    store = ImageStore(store.root)
    await store.collect(0)
    again = await store.ensure(f"{registry.host}/room:a", None)
    assert again == three["a"]
    assert (again.rootfs / "a").exists()


async def test_what_another_boot_may_have_cut_short_is_not_trusted(
    store: ImageStore, three: dict[str, Image]
) -> None:
    path = store.root / "records" / f"{three['a'].digest.replace(':', '-')}.json"
    record = json.loads(path.read_bytes())
    assert record["boot"] is None, "it was flushed"
    path.write_text(json.dumps({**record, "boot": "another"}))
    store = ImageStore(store.root)
    await store.collect(10**12)
    assert names(store) == ["b", "c"]
    assert len(list((store.root / "layers").iterdir())) == 3


# --- a full disk --------------------------------------------------------------------------------------
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with SmallDisk(tmp_path / "disk", "4m") as disk:
        yield disk.folder


@pytest.mark.parametrize("source", ["registry", "layout"])
async def test_a_full_disk_is_told_and_nothing_is_half_done(
    small_disk: Path, made: Layout, registry: Registry, source: str
) -> None:
    store = ImageStore(small_disk / "images", ImageSettings(max_bytes=10**9))
    name = made.tag(made.image([archive(file("big", os.urandom(6 * 1024**2)))]))
    if source == "registry":
        name = registry.push(name, "big:1")
    with pytest.raises(ImageFailed, match="There is no space left on this node's disk") as caught:
        await store.ensure(name, None)
    assert caught.value.reason == Reason.DISK_FULL
    for folder in ("layers", "unpacked", "records", "partial"):
        assert list((store.root / folder).iterdir()) == []
    await store.collect()
    assert not list((store.root / "blobs/sha256").iterdir())


async def test_an_image_larger_than_the_budget_is_cut_off(
    tmp_path: Path, made: Layout, registry: Registry
) -> None:
    store = ImageStore(tmp_path / "images", ImageSettings(max_bytes=SIZE))
    name = registry.push(made.tag(made.image([archive(file("big", os.urandom(3 * SIZE)))])), "large:1")
    with pytest.raises(ImageFailed):
        await store.ensure(name, None)
    assert list((store.root / "records").iterdir()) == []
