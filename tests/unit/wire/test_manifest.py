"""Manifests from nodes: what is wrong with one is found before anybody follows it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from towline.wire.artifacts import FILE, FOLDER, OTHER, Artifact
from towline.wire.manifest import (
    BLOB_BYTES,
    INLINE_BYTES,
    Manifest,
    blob_count,
    blob_size,
    decode,
    digest_of,
    encode,
    place_of,
)


def entry(path: str, kind: str = FILE, size: int = 0, **fields: Any) -> Artifact:
    return Artifact(path=path, kind=kind, size_bytes=size, modified_ms=0, mode=0o644, **fields)


SMALL = Manifest(
    entries=(entry("d", FOLDER), entry("d/x", size=3), entry("l", OTHER, target="d/x"), entry("y", size=2)),
    size_bytes=5,
    inline=b"xxxyy",
)
LARGE = Manifest(
    entries=(entry("a", size=BLOB_BYTES), entry("b", size=10)),
    size_bytes=BLOB_BYTES + 10,
    blobs=(digest_of(b"1"), digest_of(b"2")),
)


@pytest.mark.parametrize("manifest", [SMALL, LARGE, Manifest(entries=(), size_bytes=0)])
def test_what_is_right_comes_back_as_it_was(manifest: Manifest) -> None:
    assert decode(encode(manifest)) == manifest


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (structs.replace(SMALL, size_bytes=6), "have 5 bytes"),
        (structs.replace(SMALL, inline=b"xxxy"), "brings 4 bytes of 5"),
        (structs.replace(LARGE, blobs=LARGE.blobs[:1]), "are 2 blobs, not 1"),
        (structs.replace(LARGE, blobs=(b"short", b"short")), "no SHA-256"),
        (structs.replace(SMALL, entries=(*SMALL.entries, entry("y"))), "twice"),
        (structs.replace(SMALL, entries=(entry("d/x", size=5), entry("d/x", OTHER, target="/"))), "twice"),
        (structs.replace(SMALL, entries=(entry("y", "device", size=0),)), "unknown kind"),
        (structs.replace(SMALL, entries=(entry("y", size=-5),)), "a size that it cannot have"),
        (structs.replace(SMALL, entries=(entry("y", FOLDER, size=5),)), "a size that it cannot have"),
        (structs.replace(SMALL, entries=(entry("y", size=5, target="x"),)), "cannot be such a link"),
        (structs.replace(SMALL, entries=(entry("y", OTHER, target=""),)), "cannot be such a link"),
        *[
            (structs.replace(SMALL, entries=(entry(path, size=5),)), "no path below TOW_OUT")
            for path in ("../x", "/etc/passwd", "a/../../x", "a//b", ".", "", "a\0b", "/".join("a" * 65))
        ],
    ],
)
def test_what_is_wrong_is_refused(wrong: Manifest, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        decode(encode(wrong))


def test_what_is_no_manifest_is_refused() -> None:
    for data in (b"", b"\xff", b"\x80", encode(SMALL)[:-1]):
        with pytest.raises(ValueError, match="no manifest"):
            decode(data)


def test_what_nobody_lays_may_be_called_anything() -> None:
    odd = Manifest(entries=(entry("n\\udcff", OTHER, why="a pipe"),), size_bytes=0)
    assert decode(encode(odd)) == odd


def test_where_a_file_is_in_the_content() -> None:
    assert place_of(SMALL.entries, "y") == (3, SMALL.entries[3])
    assert place_of(SMALL.entries, "d") is place_of(SMALL.entries, "l") is None


def test_blobs_are_all_full_but_the_last() -> None:
    assert [blob_size(LARGE, 0), blob_size(LARGE, 1)] == [BLOB_BYTES, 10]
    assert [blob_count(n) for n in (1, BLOB_BYTES, BLOB_BYTES + 1)] == [1, 1, 2]
    assert INLINE_BYTES < BLOB_BYTES
