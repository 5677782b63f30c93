"""Artifacts in the object store: whole, or not there."""

from __future__ import annotations

import pytest
from obstore.store import MemoryStore

from towline.errors import Conflict, Damaged, NotFound, RequestError
from towline.logs.objects import Objects
from towline.server.artifacts.keeping import Keeping
from towline.wire.artifacts import FILE, Artifact
from towline.wire.manifest import BLOB_BYTES, Kept, Manifest, digest_of, encode

ONE, OTHER = ("j", 0, 3, 1), ("j", 0, 3, 2)
CONTENT = bytes(range(256)) * (BLOB_BYTES // 256) + b"the end"
BLOBS = [CONTENT[:BLOB_BYTES], CONTENT[BLOB_BYTES:]]
NAMES = [digest_of(blob).hex() for blob in BLOBS]


def manifest() -> Manifest:
    entry = Artifact(path="x", kind=FILE, size_bytes=len(CONTENT), modified_ms=0, mode=0o644)
    return Manifest(
        entries=(entry,), size_bytes=len(CONTENT), blobs=tuple(bytes.fromhex(name) for name in NAMES)
    )


@pytest.fixture
def keeping() -> Keeping:
    return Keeping(Objects(MemoryStore()))


def test_nothing_is_there_before_all_of_it_is(keeping: Keeping) -> None:
    keeping.put_blob(ONE, NAMES[1], BLOBS[1])
    assert keeping.kept(ONE) == Kept(whole=False, blobs=(NAMES[1],))
    with pytest.raises(Conflict, match=NAMES[0]):
        keeping.finish(ONE, encode(manifest()))
    assert keeping.manifest(ONE) is None
    assert keeping.written("j", 0) == set()
    keeping.put_blob(ONE, NAMES[0], BLOBS[0])
    keeping.finish(ONE, encode(manifest()))
    assert keeping.kept(ONE) == Kept(whole=True)
    assert keeping.written("j", 0) == {(3, 1)}
    read = keeping.read(ONE, manifest(), BLOB_BYTES - 2, 100)
    assert read == CONTENT[BLOB_BYTES - 2 : BLOB_BYTES]
    assert keeping.read(ONE, manifest(), BLOB_BYTES, 100) == b"the end"


def test_a_blob_with_another_content_is_refused(keeping: Keeping) -> None:
    with pytest.raises(RequestError, match="damaged on its way"):
        keeping.put_blob(ONE, NAMES[0], BLOBS[0][:-1])
    with pytest.raises(RequestError, match="no blob's name"):
        keeping.put_blob(ONE, "../../" + NAMES[0], BLOBS[0])
    assert keeping.kept(ONE) == Kept(whole=False)


def test_what_another_attempt_has_brought_is_nobody_elses(keeping: Keeping) -> None:
    for name, blob in zip(NAMES, BLOBS, strict=True):
        keeping.put_blob(ONE, name, blob)
    with pytest.raises(Conflict):
        keeping.finish(OTHER, encode(manifest()))
    with pytest.raises(NotFound):
        keeping.blob(OTHER, NAMES[0])


def test_a_wrong_manifest_is_refused(keeping: Keeping) -> None:
    with pytest.raises(RequestError, match="The manifest is wrong"):
        keeping.finish(ONE, b"\x80")


def test_a_job_goes_with_all_of_its_artifacts(keeping: Keeping) -> None:
    for attempt in (ONE, ("k", 0, 0, 1)):
        for name, blob in zip(NAMES, BLOBS, strict=True):
            keeping.put_blob(attempt, name, blob)
        keeping.finish(attempt, encode(manifest()))
    assert keeping.manifest(ONE) is not None
    size = keeping.size_bytes(["j"])
    assert size > len(CONTENT)
    assert keeping.drop_jobs(["j", "unknown"]) == size
    assert keeping.manifest(ONE) is None
    assert keeping.size_bytes(["j"]) == 0
    assert keeping.manifest(("k", 0, 0, 1)) is not None


def _kept() -> tuple[Keeping, MemoryStore]:
    """ONE's artifacts, and where they lie."""
    store = MemoryStore()
    keeping = Keeping(Objects(store))
    for name, blob in zip(NAMES, BLOBS, strict=True):
        keeping.put_blob(ONE, name, blob)
    keeping.finish(ONE, encode(manifest()))
    return Keeping(Objects(store)), store


@pytest.mark.parametrize("harm", ["changed", "shorter", "gone"])
def test_a_part_that_is_not_what_was_brought_is_not_read(harm: str) -> None:
    keeping, store = _kept()
    key = f"artifacts/j/blobs/0.3.1/{NAMES[0]}"
    if harm == "gone":
        store.delete(key)
    else:
        store.put(key, b"\1" + BLOBS[0][1:] if harm == "changed" else BLOBS[0][:-1])
    assert keeping.read(ONE, manifest(), BLOB_BYTES, 100) == b"the end"
    for offset in (0, BLOB_BYTES - 2):
        with pytest.raises(Damaged, match=f"attempt j-0-3-1 wrote is damaged.*{NAMES[0]}.*tow retry"):
            keeping.read(ONE, manifest(), offset, 1)


def test_a_list_that_is_not_what_was_brought_is_not_read() -> None:
    keeping, store = _kept()
    key = "artifacts/j/manifests/0/3.1"
    whole = bytes(store.get(key).bytes())
    for data in (whole[:-1] + b"\1", whole[:20], b"", b"\x80"):
        store.put(key, data)
        with pytest.raises(Damaged, match=key):
            keeping.manifest(ONE)
        assert keeping.kept(ONE) == Kept(whole=False, blobs=tuple(sorted(NAMES))), "it can be brought again"
    store.put(key, encode(manifest()))  # as earlier builds kept it
    assert keeping.manifest(ONE) == manifest()
