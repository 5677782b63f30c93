"""Images from a real registry: found, pinned, shared, and every way in which they cannot be had."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.images import INDEX, MANIFEST, Layout, archive, digest_of, file
from tests.registry import PASSWORD, USER, Registry, StallingRegistry

from towline.errors import NodeError
from towline.images import ImageFailed, ImageStore, Login
from towline.images.layout import native_architecture
from towline.images.settings import ImageSettings, is_loopback
from towline.images.skopeo import explain
from towline.model.states import Reason

pytestmark = pytest.mark.containers


async def failure(store: ImageStore, name: str, **options: object) -> ImageFailed:
    with pytest.raises(ImageFailed) as caught:
        await store.ensure(name, None, **options)  # type: ignore[arg-type]
    for folder in ("layers", "unpacked", "partial", "records"):
        assert list((store.root / folder).iterdir()) == []
    return caught.value


def image(made: Layout, content: bytes, tag: str = "1") -> str:
    return made.tag(made.image([archive(file("content", content))]), tag)


def manifest_digest(made: Layout) -> str:
    return json.loads((made.path / "index.json").read_bytes())["manifests"][0]["digest"]


async def test_an_image_is_pulled_by_its_tag_and_by_its_digest(
    store: ImageStore, made: Layout, registry: Registry
) -> None:
    name = registry.push(image(made, b"one"), "first:1")
    found = await store.ensure(name, None)
    assert (found.rootfs / "content").read_bytes() == b"one"
    assert found.digest == manifest_digest(made)
    assert found.config.cmd == ("sh",)
    again = await store.ensure(f"{registry.host}/first@{found.digest}", None)
    assert again == found
    (listed,) = await store.stored()
    assert listed.names == (name,)
    assert list((store.root / "partial").iterdir()) == []


async def test_a_pinned_task_gets_its_image_wherever_the_tag_has_moved(
    store: ImageStore, made: Layout, registry: Registry, tmp_path: Path
) -> None:
    name = registry.push(image(made, b"one"), "moving:1")
    first = await store.ensure(name, None)
    registry.push(image(made, b"two"), "moving:1")
    second = await store.ensure(name, None)
    assert (second.rootfs / "content").read_bytes() == b"two"
    assert await store.ensure(name, None, pinned=first.digest) == first
    elsewhere = await ImageStore(tmp_path / "other").ensure(name, None, pinned=first.digest)
    assert (elsewhere.rootfs / "content").read_bytes() == b"one"
    assert elsewhere.digest == first.digest


async def test_within_a_job_a_tag_is_asked_for_once(
    store: ImageStore, made: Layout, registry: Registry
) -> None:
    name = registry.push(image(made, b"one"), "scoped:1")
    first = await store.ensure(name, None, scope="j1")
    registry.push(image(made, b"two"), "scoped:1")
    assert await store.ensure(name, None, scope="j1") == first
    assert (await store.ensure(name, None, scope="j2")).digest != first.digest


async def test_a_tag_that_is_known_is_asked_for_without_skopeo(
    store: ImageStore, made: Layout, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = registry.push(image(made, b"one"), "quick:1")
    first = await store.ensure(name, None)
    assert await store.ensure(name, None) == first
    tags = store._tags  # pyright: ignore[reportPrivateUsage]
    await asyncio.gather(*tags.opening.values())
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert await store.ensure(name, None) == first
    monkeypatch.setenv("PATH", path)
    registry.push(image(made, b"two"), "quick:1")
    assert (await store.ensure(name, None)).digest != first.digest


async def test_many_tasks_cause_one_pull_and_what_came_is_not_sent_again(
    store: ImageStore, made: Layout, registry: Registry
) -> None:
    base = archive(file("base", os.urandom(500_000)))
    one = registry.push(made.tag(made.image([base, archive(file("one"))]), "one"), "shared:one")
    two = registry.push(made.tag(made.image([base, archive(file("two"))]), "two"), "shared:two")
    images = await asyncio.gather(*(store.ensure(one, None) for _ in range(10)))
    assert len(set(images)) == 1
    blobs = {path.name: path.stat().st_ino for path in (store.root / "blobs/sha256").iterdir()}
    await store.ensure(two, None)
    after = {path.name: path.stat().st_ino for path in (store.root / "blobs/sha256").iterdir()}
    assert blobs.items() <= after.items()
    assert len(list((store.root / "layers").iterdir())) == 3


async def test_one_waiter_may_go_and_the_pull_goes_on(
    store: ImageStore, made: Layout, registry: Registry
) -> None:
    name = registry.push(image(made, b"x" * 1_000_000), "left:1")
    going, staying = (asyncio.ensure_future(store.ensure(name, None)) for _ in range(2))
    await asyncio.sleep(0)
    going.cancel()
    assert (await staying).digest == manifest_digest(made)


def push_index(made: Layout, registry: Registry, architectures: list[str]) -> tuple[str, str]:
    """(the index's name, its digest)"""
    registry.push(image(made, b"native"), "several:native")
    size = len(made.body(manifest_digest(made)))
    entries = [
        {
            "mediaType": MANIFEST,
            "digest": manifest_digest(made),
            "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        }
        for architecture in architectures
    ]
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    registry.put_manifest("several", "1", body, INDEX)
    return f"{registry.host}/several:1", digest_of(body)


async def test_of_an_index_the_native_image_is_taken_and_the_index_is_pinned(
    store: ImageStore, made: Layout, registry: Registry
) -> None:
    name, digest = push_index(made, registry, ["s390x", native_architecture()])
    found = await store.ensure(name, None)
    assert found.digest == digest
    assert (found.rootfs / "content").read_bytes() == b"native"
    assert await store.ensure(name, None, pinned=digest) == found


async def test_an_index_for_other_machines_only(store: ImageStore, made: Layout, registry: Registry) -> None:
    name, _ = push_index(made, registry, ["s390x", "riscv64"])
    error = await failure(store, name)
    assert error.reason == Reason.IMAGE_NOT_FOUND
    assert f"architecture {native_architecture()}" in str(error)


@pytest.mark.parametrize("name", ["nowhere:1", "there:9", f"there@sha256:{'0' * 64}"])
async def test_what_is_not_there(store: ImageStore, made: Layout, registry: Registry, name: str) -> None:
    registry.push(image(made, b"x"), "there:1")
    error = await failure(store, f"{registry.host}/{name}")
    assert error.reason == Reason.IMAGE_NOT_FOUND
    assert "There is no image" in str(error)
    assert error.tried
    assert all(f"{registry.host}/" in text for _, text in error.tried)


# --- logins -------------------------------------------------------------------------------------------
async def test_a_registry_that_wants_a_login(
    store: ImageStore, made: Layout, closed_registry: Registry
) -> None:
    host = closed_registry.host
    name = closed_registry.push(image(made, b"secret"), "closed:1")
    error = await failure(store, name)
    assert error.reason == Reason.IMAGE_AUTH
    assert "tow registry login" in str(error)
    wrong = await failure(store, name, login=Login(host, USER, "guess"))
    assert wrong.reason == Reason.IMAGE_AUTH
    assert "guess" not in str(wrong)
    found = await store.ensure(name, None, login=Login(host, USER, PASSWORD))
    assert (found.rootfs / "content").read_bytes() == b"secret"


async def test_a_password_is_nowhere_but_in_memory(
    store: ImageStore, made: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A skopeo of the test's own writes down all that it can see of what it was given."""
    spy = tmp_path / "bin" / "skopeo"
    spy.parent.mkdir()
    spy.write_text(
        "#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done >$SEEN/arguments\nenv >$SEEN/environment\n"
        'while [ "$1" != --authfile ]; do shift; done; cat "$2" >$SEEN/authfile\n'
        'stat -L -c %a "$2" >$SEEN/mode\n'
        'readlink "$2" >$SEEN/place; exit 1\n'.replace("$SEEN", str(tmp_path))
    )
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("OTHER_SECRET", "do not pass on")
    login = Login("ghcr.io", "ada", "hunter2hunter2")
    with pytest.raises(ImageFailed):
        await store.ensure("ghcr.io/x/y:1", None, login=login)
    assert "hunter2" not in (tmp_path / "arguments").read_text() + repr(login)
    environment = (tmp_path / "environment").read_text()
    assert "hunter2" not in environment
    assert "OTHER_SECRET" not in environment
    auth = json.loads((tmp_path / "authfile").read_text())
    assert list(auth["auths"]) == ["ghcr.io"]
    assert (tmp_path / "mode").read_text() == "600\n"
    assert (tmp_path / "place").read_text().startswith("/memfd:")


# --- what goes wrong on the way -----------------------------------------------------------------------
async def test_a_registry_that_stalls_is_cut_off(tmp_path: Path, made: Layout) -> None:
    image(made, os.urandom(200_000))
    manifest = made.body(manifest_digest(made))
    blobs = {f"sha256:{path.name}": path.read_bytes() for path in (made.path / "blobs/sha256").iterdir()}
    stalling = StallingRegistry(manifest, blobs, sent_bytes=100)
    store = ImageStore(tmp_path / "images", ImageSettings(pull_timeout_s=1.0))
    try:
        error = await failure(store, f"{stalling.host}/x:1")
        assert stalling.stalled.is_set()
    finally:
        stalling.close()
    assert error.reason == Reason.IMAGE_PULL_TIMEOUT
    assert "has sent nothing" in str(error)
    assert "skopeo" not in await asyncio.to_thread(children)


def children() -> str:
    argv = ["ps", "--ppid", str(os.getpid()), "-o", "comm="]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


async def test_a_pull_that_nobody_waits_for_ends(tmp_path: Path, made: Layout) -> None:
    image(made, os.urandom(200_000))
    manifest = made.body(manifest_digest(made))
    blobs = {f"sha256:{path.name}": path.read_bytes() for path in (made.path / "blobs/sha256").iterdir()}
    stalling = StallingRegistry(manifest, blobs, sent_bytes=100)
    store = ImageStore(tmp_path / "images")
    try:
        waiting = asyncio.ensure_future(store.ensure(f"{stalling.host}/x:1", None))
        await asyncio.to_thread(stalling.stalled.wait)
        assert [one.progress for one in await store.stored()] == ["pulling: 0.0 of 0.2 MiB"]
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        while store.is_busy:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    finally:
        stalling.close()
    assert list((store.root / "partial").iterdir()) == []
    assert await store.stored() == []


_PULL = """
import asyncio, sys
from pathlib import Path
from towline.images import ImageStore
asyncio.run(ImageStore(Path(sys.argv[1])).ensure(sys.argv[2], None))
"""


async def test_a_pull_ends_with_its_process_and_leaves_nothing(store: ImageStore, made: Layout) -> None:
    image(made, os.urandom(200_000))
    manifest = made.body(manifest_digest(made))
    blobs = {f"sha256:{path.name}": path.read_bytes() for path in (made.path / "blobs/sha256").iterdir()}
    stalling = StallingRegistry(manifest, blobs, sent_bytes=100)
    try:
        argv = [sys.executable, "-c", _PULL, store.root, f"{stalling.host}/x:1"]
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
        await asyncio.to_thread(stalling.stalled.wait)
        (left,) = (store.root / "partial").iterdir()
        lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
        process.kill()
        await process.wait()
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)  # skopeo has inherited the other's
        os.close(lock)
    finally:
        stalling.close()
    await store.collect()
    assert list((store.root / "partial").iterdir()) == []


async def test_a_registry_that_nobody_answers_for(store: ImageStore) -> None:
    error = await failure(store, "localhost:1/x:1")
    assert error.reason == Reason.IMAGE_PULL_TIMEOUT
    assert "connection refused" in str(error)


async def test_a_registry_that_is_gone_is_done_without(
    made: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "registry").mkdir()
    mine = Registry(tmp_path / "registry")
    try:
        store = ImageStore(tmp_path / "images")
        name = mine.push(image(made, b"x"), "mine:1")
        found = await store.ensure(name, None)
    finally:
        mine.close()
    assert await store.ensure(name, None) == found
    with pytest.raises(ImageFailed):
        await store.ensure(f"{mine.host}/mine:2", None)


@pytest.mark.parametrize("damage", ["truncated", "changed", "gone"])
async def test_a_blob_that_is_damaged_in_the_registry(
    store: ImageStore, made: Layout, registry: Registry, damage: str
) -> None:
    name = registry.push(image(made, os.urandom(100_000)), f"damaged-{damage}:1")
    layer = json.loads(made.body(manifest_digest(made)))["layers"][0]["digest"]
    path = registry.blob(layer)
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    error = await failure(store, name)
    assert error.reason == Reason.IMAGE_CORRUPT, str(error)
    assert not (store.root / "blobs" / layer.replace(":", "/")).exists()


async def test_a_manifest_of_another_digest_never_starts(
    store: ImageStore, made: Layout, registry: Registry
) -> None:
    name = registry.push(image(made, b"x"), "swapped:1")
    digest = manifest_digest(made)
    path = registry.blob(digest)
    path.write_bytes(path.read_bytes().replace(b'"schemaVersion"', b' "schemaVersion"'))
    error = await failure(store, f"{name.rpartition(':')[0]}@{digest}")
    assert error.reason == Reason.IMAGE_CORRUPT, str(error)


async def test_a_copy_that_was_damaged_on_the_node_is_pulled_again(
    store: ImageStore, made: Layout, registry: Registry
) -> None:
    name = registry.push(image(made, os.urandom(10_000)), "rotten:1")
    found = await store.ensure(name, None)
    layer = json.loads(made.body(manifest_digest(made)))["layers"][0]["digest"]
    blob = store.root / "blobs" / layer.replace(":", "/")
    blob.write_bytes(b"x" * blob.stat().st_size)
    await asyncio.to_thread(shutil.rmtree, store.root / "layers")
    for record in (store.root / "records").iterdir():
        record.unlink()
    fresh = ImageStore(store.root)
    with pytest.raises(ImageFailed) as caught:
        await fresh.ensure(name, None)
    assert caught.value.reason == Reason.IMAGE_CORRUPT
    assert (await fresh.ensure(name, None)).digest == found.digest


# --- archives -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
async def test_archives_are_read_again_when_they_change(
    store: ImageStore, made: Layout, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "a b.tar"

    def save(content: bytes) -> None:
        path.unlink(missing_ok=True)
        suffix = ":x/y:1" if kind == "docker-archive" else ":1"
        argv = ["skopeo", "copy", "--quiet", image(made, content), f"{kind}:{path}{suffix}"]
        subprocess.run(argv, check=True, capture_output=True)

    save(b"one")
    first = await store.ensure(f"{kind}:a b.tar", str(tmp_path))
    assert (first.rootfs / "content").read_bytes() == b"one"
    assert await store.ensure(f"{kind}:{path}", None) == first
    save(b"two")
    second = await store.ensure(f"{kind}:{path}", None)
    assert (second.rootfs / "content").read_bytes() == b"two"
    assert await store.ensure(f"{kind}:{path}", None, pinned=first.digest) == first
    with pytest.raises(ImageFailed, match="another image than the task began with"):
        await ImageStore(tmp_path / "other").ensure(f"{kind}:{path}", None, pinned=first.digest)


async def test_an_archive_that_is_none(store: ImageStore, tmp_path: Path) -> None:
    missing = await failure_without_store(store, f"docker-archive:{tmp_path}/nothing.tar")
    assert missing.reason == Reason.IMAGE_NOT_FOUND
    (tmp_path / "text.tar").write_text("no archive")
    damaged = await failure_without_store(store, f"docker-archive:{tmp_path}/text.tar")
    assert damaged.reason == Reason.IMAGE_CORRUPT


async def failure_without_store(store: ImageStore, name: str) -> ImageFailed:
    with pytest.raises(ImageFailed) as caught:
        await store.ensure(name, None)
    return caught.value


# --- words --------------------------------------------------------------------------------------------
def fatal(words: str) -> str:
    return f'time="2026-01-01T00:00:00Z" level=fatal msg="{words}"\n'


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("write /x: no space left on device", Reason.DISK_FULL),
        ("reading manifest v1 in ghcr.io/unauthorized/denied: manifest unknown", Reason.IMAGE_NOT_FOUND),
        (
            r"Error parsing image name \"docker://x/digest-did-not-match/x509:tls\": EOF",
            Reason.IMAGE_PULL_TIMEOUT,
        ),
        ("requested access to the resource is denied", Reason.IMAGE_AUTH),
        ("invalid status code from registry 403 (Forbidden)", Reason.IMAGE_AUTH),
        ("toomanyrequests: You have reached your pull rate limit", Reason.IMAGE_PULL_TIMEOUT),
        ("dial tcp: lookup nowhere: no such host", Reason.IMAGE_PULL_TIMEOUT),
        ("Digest did not match, expected sha256:1, got sha256:2", Reason.IMAGE_CORRUPT),
        ("something new", Reason.IMAGE_PULL_TIMEOUT),
    ],
)
def test_complaints_are_sorted(words: str, reason: Reason) -> None:
    error = explain("x/y:1", fatal(words))
    assert isinstance(error, ImageFailed)
    assert error.reason == reason, str(error)


def test_a_registry_whose_certificate_is_unknown() -> None:
    error = explain("x/y:1", fatal("x509: certificate signed by unknown authority"))
    assert isinstance(error, NodeError)
    assert "insecure_registries" in str(error)


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True), ("localhost:5000", True), ("127.0.0.1:1", True), ("127.9.9.9", True),
        ("[::1]:5000", True), ("127.0.0.1.evil.org", False), ("localhost.evil.org", False),
        ("10.0.0.1:5000", False), ("ghcr.io", False), ("[fe80::1]", False),
    ],
)  # fmt: skip
def test_only_this_machine_may_do_without_tls(host: str, is_ours: bool) -> None:
    assert is_loopback(host) is is_ours
