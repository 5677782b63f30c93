"""Images are found, checked and unpacked once; what is wrong with one is said in words that help."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.containers import TAG

from towline.images import ImageFailed, ImageStore
from towline.images.layout import native_architecture
from towline.model.states import Reason

pytestmark = pytest.mark.containers


@pytest.fixture
def layout(busybox_image: str, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    source = busybox_image.removeprefix("oci:").removesuffix(f":{TAG}")
    return Path(shutil.copytree(source, tmp_path / "layout"))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


async def failure(store: ImageStore, reference: str, base_dir: str | None = None) -> ImageFailed:
    with pytest.raises(ImageFailed) as caught:
        await store.ensure(reference, base_dir)
    return caught.value


def run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def index_of(layout: Path) -> dict:
    return json.loads((layout / "index.json").read_bytes())


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def manifest_of(layout: Path) -> dict:
    return json.loads(blob(layout, index_of(layout)["manifests"][0]["digest"]).read_bytes())


async def test_an_image_is_unpacked_with_its_digest_and_its_settings(store: ImageStore, layout: Path):
    image = await store.ensure("oci:layout:1.36", str(layout.parent))
    assert image.digest == index_of(layout)["manifests"][0]["digest"]
    assert os.access(image.rootfs / "bin/busybox", os.X_OK)
    assert (image.rootfs / "bin/sh").readlink() == Path("busybox")
    assert image.config.cmd == ("sh",)
    assert image.config.entrypoint is None
    assert image.config.env == ("PATH=/bin",)


async def test_the_only_tag_need_not_be_named(store: ImageStore, layout: Path):
    image = await store.ensure(f"oci:{layout}", None)
    assert image == await store.ensure(f"oci:{layout}:{TAG}", None)


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a b", "ä:%s\"'"])
async def test_images_and_node_may_lie_in_folders_of_any_name(tmp_path: Path, layout: Path, name: str):
    home = tmp_path / name
    shutil.copytree(layout, home / "layout")
    image = await ImageStore(home / "images").ensure(f"oci:layout:{TAG}", str(home))
    assert os.access(image.rootfs / "bin/busybox", os.X_OK)


async def test_many_waiters_cause_one_unpack(store: ImageStore, layout: Path):
    images = await asyncio.gather(*[store.ensure(f"oci:{layout}:{TAG}", None) for _ in range(20)])
    assert len(set(images)) == 1
    rootfs = images[0].rootfs
    assert list((store.root / "layers").iterdir()) == [rootfs.parent]
    before = rootfs.stat().st_ino
    again = await ImageStore(store.root).ensure(f"oci:{layout}:{TAG}", None)
    assert again.rootfs.stat().st_ino == before


async def test_two_stores_may_unpack_the_same_image_at_once(tmp_path: Path, layout: Path):
    stores = [ImageStore(tmp_path / "images") for _ in range(3)]
    images = await asyncio.gather(*[store.ensure(f"oci:{layout}:{TAG}", None) for store in stores])
    assert len(set(images)) == 1
    assert list((tmp_path / "images/partial").iterdir()) == []


async def test_a_tag_that_moves_gives_the_new_image(store: ImageStore, layout: Path):
    first = await store.ensure(f"oci:{layout}:{TAG}", None)
    run("umoci", "config", "--image", f"{layout}:{TAG}", "--config.user", "user")
    second = await store.ensure(f"oci:{layout}:{TAG}", None)
    assert second.digest != first.digest
    assert second.config.user == "user"


async def test_an_unknown_tag_is_answered_with_those_that_exist(store: ImageStore, layout: Path):
    error = await failure(store, f"oci:{layout}:9.9")
    assert error.reason == Reason.IMAGE_NOT_FOUND
    assert "'9.9'" in str(error)
    assert "it has 1.36" in str(error)


@pytest.mark.parametrize(
    ("path", "says"),
    [("nowhere", "There is no folder"), (".", "is no OCI layout"), ("file", "is no folder")],
)
async def test_a_layout_that_is_none(store: ImageStore, tmp_path: Path, path: str, says: str):
    (tmp_path / "file").write_text("")
    error = await failure(store, f"oci:{path}:x", str(tmp_path))
    assert error.reason == Reason.IMAGE_NOT_FOUND
    assert says in str(error)


@pytest.mark.parametrize(("reference", "says"), [("Debian", "use debian"), ("oci:x:1", "has no base_dir")])
async def test_a_reference_that_cannot_be_used(store: ImageStore, reference: str, says: str):
    error = await failure(store, reference)
    assert error.reason == Reason.IMAGE_NOT_FOUND
    assert says in str(error)


@pytest.mark.parametrize("part", ["manifest", "config", "layer"])
async def test_changed_content_is_found_by_its_digest(store: ImageStore, layout: Path, part: str):
    manifest = manifest_of(layout)
    digest = {
        "manifest": index_of(layout)["manifests"][0]["digest"],
        "config": manifest["config"]["digest"],
        "layer": manifest["layers"][0]["digest"],
    }[part]
    path = blob(layout, digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    error = await failure(store, f"oci:{layout}:{TAG}")
    assert error.reason == Reason.IMAGE_CORRUPT
    assert digest in str(error)
    assert "build or copy" in str(error)


async def test_a_layer_replaced_by_another_valid_one_is_found(
    store: ImageStore, layout: Path, tmp_path: Path
):
    digest = manifest_of(layout)["layers"][0]["digest"]
    path = blob(layout, digest)
    size = path.stat().st_size
    (tmp_path / "evil").write_text("evil")
    run("tar", "-czf", path, "-C", tmp_path, "evil")
    with path.open("ab") as file:  # of the same length, as gzip members that hold nothing
        padding = size - file.tell()
        file.write(b"\0" * padding)
    error = await failure(store, f"oci:{layout}:{TAG}")
    assert error.reason == Reason.IMAGE_CORRUPT
    assert digest in str(error)
    assert list((tmp_path / "images/layers").iterdir()) == []


@pytest.mark.parametrize("part", ["config", "layers"])
async def test_missing_content_is_named(store: ImageStore, layout: Path, part: str):
    manifest = manifest_of(layout)
    digest = manifest["config"]["digest"] if part == "config" else manifest["layers"][0]["digest"]
    blob(layout, digest).unlink()
    error = await failure(store, f"oci:{layout}:{TAG}")
    assert error.reason == Reason.IMAGE_CORRUPT
    assert digest in str(error)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"manifests": 3}', b"\xff\xfe"])
async def test_an_index_that_does_not_read(store: ImageStore, layout: Path, content: bytes):
    (layout / "index.json").write_bytes(content)
    error = await failure(store, f"oci:{layout}:{TAG}")
    assert error.reason == Reason.IMAGE_CORRUPT


async def test_a_digest_cannot_lead_out_of_the_layout(store: ImageStore, layout: Path):
    index = index_of(layout)
    index["manifests"][0]["digest"] = "sha256:../../../../etc/passwd"
    (layout / "index.json").write_text(json.dumps(index))
    error = await failure(store, f"oci:{layout}:{TAG}")
    assert error.reason == Reason.IMAGE_CORRUPT
    assert "is no digest" in str(error)


def add_index_blob(layout: Path, architectures: list[str]) -> None:
    """Put an index of several architectures, each the one image that there is, behind the tag ``multi``."""
    entry = dict(index_of(layout)["manifests"][0])
    entry.pop("annotations")
    entries = [{**entry, "platform": {"os": "linux", "architecture": name}} for name in architectures]
    body = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    digest = sha256(body)
    (layout / "blobs/sha256" / digest).write_bytes(body)
    index = index_of(layout)
    index["manifests"].append(
        {
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": f"sha256:{digest}",
            "size": len(body),
            "annotations": {"org.opencontainers.image.ref.name": "multi"},
        }
    )
    (layout / "index.json").write_text(json.dumps(index))


async def test_of_several_architectures_the_native_one_is_taken(store: ImageStore, layout: Path):
    add_index_blob(layout, ["s390x", native_architecture()])
    image = await store.ensure(f"oci:{layout}:multi", None)
    assert image.digest == index_of(layout)["manifests"][0]["digest"]
    assert (image.rootfs / "bin/sh").is_symlink()


async def test_an_image_for_other_machines_only(store: ImageStore, layout: Path):
    add_index_blob(layout, ["s390x", "riscv64"])
    error = await failure(store, f"oci:{layout}:multi")
    assert error.reason == Reason.IMAGE_NOT_FOUND
    assert "only for riscv64, s390x" in str(error)


async def test_a_kind_of_layer_that_cannot_be_unpacked(store: ImageStore, layout: Path):
    manifest = manifest_of(layout)
    manifest["layers"][0]["mediaType"] += ".zstd"
    body = json.dumps(manifest).encode()
    digest = sha256(body)
    (layout / "blobs/sha256" / digest).write_bytes(body)
    index = index_of(layout)
    index["manifests"][0] |= {"digest": f"sha256:{digest}", "size": len(body)}
    (layout / "index.json").write_text(json.dumps(index))
    error = await failure(store, f"oci:{layout}:{TAG}")
    assert error.reason == Reason.IMAGE_CORRUPT
    assert "--dest-compress-format gzip" in str(error)


_UNPACK_AND_STOP = """
import asyncio, os, sys
from pathlib import Path
from towline.images import ImageStore, unpack

async def stop(*_):
    print("unpacking", flush=True)
    await asyncio.Event().wait()

unpack._run = stop
asyncio.run(ImageStore(Path(sys.argv[1])).ensure(sys.argv[2], None))
"""


async def test_what_a_dead_process_left_half_unpacked_is_removed(tmp_path: Path, layout: Path):
    root = tmp_path / "images"
    argv = [sys.executable, "-c", _UNPACK_AND_STOP, root, f"oci:{layout}:{TAG}"]
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"unpacking\n"
        (left,) = (root / "partial").iterdir()
        image = await ImageStore(root).ensure(f"oci:{layout}:{TAG}", None)
        assert left.exists(), "it is held by a process that lives"
        shutil.rmtree(image.rootfs)
    finally:
        process.kill()
        await process.wait()
    await ImageStore(root).ensure(f"oci:{layout}:{TAG}", None)
    assert not left.exists()
