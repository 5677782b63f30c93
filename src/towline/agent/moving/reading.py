"""A tree that an attempt has written, as what leaves the node: its entries, and its content in blobs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from towline.agent.fetching import tree
from towline.wire.artifacts import FILE, Artifact
from towline.wire.manifest import BLOB_BYTES, MAX_ENTRIES


class Changed(Exception):
    """The tree is another one than a moment ago: something still writes into it."""


class TooMany(Exception):
    """The tree has more entries than are moved."""


def entries_of(root: str) -> tuple[Artifact, ...]:
    """Raises TooMany, OSError."""
    found: list[Artifact] = []
    for entry in tree.everything(root):
        if len(found) == MAX_ENTRIES:
            raise TooMany(f"it has more than {MAX_ENTRIES:,} files and folders: pack them into fewer files")
        found.append(entry)
    return tuple(found)


def content(root: str, entries: Sequence[Artifact]) -> Iterator[bytes]:
    """The files' content in blobs, all but the last of full size. Raises Changed, OSError."""
    blob, at = bytearray(BLOB_BYTES), 0
    with tree.open_folder(root, None) as top:
        for entry in entries:
            if entry.kind != FILE or not entry.size_bytes:
                continue
            for piece in _file(top, entry, blob, at):
                at = piece
                if at == BLOB_BYTES:
                    yield bytes(blob)
                    at = 0
    if at:
        yield bytes(memoryview(blob)[:at])


def _file(top: int, entry: Artifact, blob: bytearray, at: int) -> Iterator[int]:
    """Fill the blob from ``at`` on, and yield up to where it is full each time that something was read; it
    begins again behind a full one."""
    try:
        with tree.opened(top, entry.path) as descriptor:
            offset = 0
            while offset < entry.size_bytes:
                wanted = min(BLOB_BYTES - at, entry.size_bytes - offset)
                count = os.preadv(descriptor, [memoryview(blob)[at : at + wanted]], offset)
                if count == 0:
                    raise Changed(f"{entry.path} has become shorter")
                offset += count
                at += count
                yield at
                at %= BLOB_BYTES
            if os.fstat(descriptor).st_size != entry.size_bytes:
                raise Changed(f"{entry.path} has become longer")
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise Changed(f"{entry.path} is not there any more: {error}") from None
