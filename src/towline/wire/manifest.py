"""What an element has written, as it leaves its node: a manifest, and the content in blobs.

The content is that of all files one after another, in the manifest's order, cut into blobs of
``BLOB_BYTES``, the last of which is shorter. So a file of any size and a million small ones move alike, and
nobody holds more of them than a few blobs. A blob's name is its SHA-256. What fits into ``INLINE_BYTES`` is
in the manifest itself.

    node                                             server
    GET  …/attempts/ATTEMPT/artifacts        ──▶     what it has of them by now
    PUT  …/attempts/ATTEMPT/artifacts/DIGEST ──▶     a blob, on its disk once answered
    PUT  …/attempts/ATTEMPT/artifacts        ──▶     the manifest: from then on they are there, whole
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from towline.wire.artifacts import FILE, FOLDER, OTHER, Artifact, parts_of

BLOB_BYTES = 8 * 1024**2
INLINE_BYTES = 64 * 1024
MAX_ENTRIES = 200_000
MANIFEST_BYTES = 60 * 1024**2
DIGEST_BYTES = 32
MAX_TARGET = 4096


class Manifest(Struct, frozen=True, kw_only=True):
    """``size_bytes`` is that of all files; ``blobs`` are SHA-256, in order."""

    entries: tuple[Artifact, ...]
    size_bytes: int
    blobs: tuple[bytes, ...] = ()
    inline: bytes = b""


class Kept(Struct, frozen=True, kw_only=True):
    """What a server has of an attempt's artifacts. ``whole``: all of them; else ``blobs``, by their hex
    names, of those that were begun."""

    whole: bool
    blobs: tuple[str, ...] = ()


class InputElements(Struct, frozen=True, kw_only=True):
    """The elements of a needed task that have written something: (index, attempt number)."""

    elements: tuple[tuple[int, int], ...]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Manifest)


def encode(manifest: Manifest) -> bytes:
    return _encoder.encode(manifest)


def decode(data: bytes) -> Manifest:
    """Raises ValueError, which says what is wrong: whoever has sent it is not trusted."""
    try:
        manifest = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise ValueError(f"it is no manifest: {error}") from None
    for wrong in _wrong(manifest):
        raise ValueError(wrong)
    return manifest


def _wrong(manifest: Manifest) -> Iterator[str]:
    if len(manifest.entries) > MAX_ENTRIES:
        yield f"it has {len(manifest.entries):,} entries, at most {MAX_ENTRIES:,}"
    seen: set[str] = set()
    for entry in manifest.entries:
        yield from _wrong_entry(entry, seen)
    total = sum(entry.size_bytes for entry in manifest.entries if entry.kind == FILE)
    if total != manifest.size_bytes:
        yield f"its files have {total} bytes, not {manifest.size_bytes}"
    if manifest.inline or total <= INLINE_BYTES:
        if len(manifest.inline) != total or manifest.blobs:
            yield f"it brings {len(manifest.inline)} bytes of {total}"
    elif len(manifest.blobs) != blob_count(total):
        yield f"{total} bytes are {blob_count(total)} blobs, not {len(manifest.blobs)}"
    if any(len(blob) != DIGEST_BYTES for blob in manifest.blobs):
        yield "a blob's name is no SHA-256"


def _wrong_entry(entry: Artifact, seen: set[str]) -> Iterator[str]:
    if entry.kind not in (FILE, FOLDER, OTHER) or not 0 <= entry.mode <= 0o777:
        yield f"{entry.path[:200]!r} is of an unknown kind"
    if entry.kind == OTHER and entry.target is None:
        return  # nobody lays it anywhere
    try:
        parts_of(entry.path)
    except ValueError as error:
        yield str(error)
    if entry.path in seen:
        yield f"{entry.path[:200]!r} is in it twice"
    seen.add(entry.path)
    if entry.size_bytes < 0 or (entry.kind != FILE and entry.size_bytes):
        yield f"{entry.path[:200]!r} has a size that it cannot have"
    if entry.target is not None and (
        entry.kind != OTHER or not 0 < len(entry.target) <= MAX_TARGET or "\0" in entry.target
    ):
        yield f"{entry.path[:200]!r} cannot be such a link"


def blob_count(size_bytes: int) -> int:
    return -(-size_bytes // BLOB_BYTES)


def blob_size(manifest: Manifest, position: int) -> int:
    """Of the blob at this position."""
    return min(BLOB_BYTES, manifest.size_bytes - position * BLOB_BYTES)


def digest_of(data: bytes | bytearray | memoryview) -> bytes:
    return hashlib.sha256(data).digest()


def place_of(entries: Sequence[Artifact], path: str) -> tuple[int, Artifact] | None:
    """(where in the content it begins, the entry) of a file; None where there is no such file."""
    at = 0
    for entry in entries:
        if entry.kind == FILE:
            if entry.path == path:
                return at, entry
            at += entry.size_bytes
    return None
