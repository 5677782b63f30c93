"""What of a store may go, and its going: the least recently used first, never what is in use.

Everything is taken out of its place in one step on the event loop, so nobody can begin to use what
goes; its files are removed afterwards, in a thread.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from towline.images.partial import discard, sweep
from towline.images.records import Record, Records
from towline.images.unpack import folder_name


class Collected(Struct, frozen=True, kw_only=True):
    """``removed`` images by a name or digest each; ``copies`` of layers, as they came from a registry,
    and ``orphans`` that belonged to no image. With a dry run: what would go."""

    removed: tuple[str, ...] = ()
    copies: int = 0
    orphans: int = 0
    freed_bytes: int = 0
    left_bytes: int = 0


class Collector:
    """Frees space in a store."""

    def __init__(self, root: Path, records: Records) -> None:
        self._root = root
        self._records = records

    def total_bytes(self, without: Iterable[str] = ()) -> int:
        """What all images take, each layer counted once."""
        gone = set(without)
        parts: dict[str, int] = {}
        for record in self._records:
            if record.digest not in gone:
                parts.update(_parts(record))
        return sum(parts.values())

    def plan(self, budget_bytes: int, in_use: Mapping[str, int]) -> tuple[list[Record], list[Record]]:
        """(images that lose the compressed copies of their layers, images that go) to get below it."""
        oldest = sorted(self._records, key=lambda one: self._records.used_s(one.digest))
        left = self.total_bytes()
        stripped: list[Record] = []
        for record in oldest:
            if left <= budget_bytes:
                return stripped, []
            if record.blobs:
                stripped.append(record)
                left = self._left(stripped, [])
        gone: list[Record] = []
        for record in oldest:
            if left <= budget_bytes:
                break
            if record.digest not in in_use:
                gone.append(record)
                left = self._left(stripped, gone)
        return stripped, gone

    def _left(self, stripped: list[Record], gone: list[Record]) -> int:
        parts: dict[str, int] = {}
        away = {record.digest for record in gone}
        bare = {record.digest for record in stripped}
        for record in self._records:
            if record.digest not in away:
                parts.update(_layers(record) if record.digest in bare else _parts(record))
        return sum(parts.values())

    async def collect(
        self, budget_bytes: int, in_use: Mapping[str, int], *, orphans: bool, dry_run: bool = False
    ) -> Collected:
        """Get below the budget. ``orphans``: nothing is under way, so what belongs to no image may go."""
        before = self.total_bytes()
        stripped, gone = self.plan(budget_bytes, in_use)
        left = self._left(stripped, gone)
        names = tuple(next(iter(sorted(record.names)), record.digest) for record in gone)
        copies = sum(len(record.blobs) for record in stripped)
        if dry_run:
            return Collected(removed=names, copies=copies, freed_bytes=before - left, left_bytes=left)
        trash = [part for record in gone for part in self.take_out(record)]
        self._strip([record for record in stripped if record not in gone])
        strays: list[Path] = []
        if orphans:
            strays = self._orphans(in_use)
            trash += [
                taken for path in strays if (taken := discard(self._root / "partial", path)) is not None
            ]
        await asyncio.to_thread(_remove, trash, self._root / "partial")
        return Collected(
            removed=names, copies=copies, orphans=len(strays), freed_bytes=before - left, left_bytes=left
        )

    def take_out(self, record: Record) -> list[Path]:
        """Forget an image, and return what is to be removed of it besides orphans."""
        self._records.remove(record.digest)
        if record.rootfs.startswith("unpacked/"):
            taken = discard(self._root / "partial", self._root / record.rootfs)
            return [] if taken is None else [taken]
        return []

    def _strip(self, stripped: list[Record]) -> None:
        for record in stripped:
            record.blobs = ()
            self._records.put_quietly(record)

    def _orphans(self, in_use: Mapping[str, int]) -> list[Path]:
        """Layers, roots and blobs of no image. An attempt may run on a root whose record is lost."""
        layers: set[str] = set()
        blobs: set[str] = set()
        roots = {folder_name(digest) for digest in in_use}
        for record in self._records:
            layers.update(folder_name(part.digest) for part in record.layers)
            blobs.update(part.digest.partition(":")[2] for part in record.blobs)
            roots.add(record.rootfs.removeprefix("unpacked/"))
        known = {record.digest for record in self._records}
        found = [path for path in _children(self._root / "unpacked") if path.name not in roots]
        if all(digest in known for digest in in_use):
            found += [path for path in _children(self._root / "layers") if path.name not in layers]
        for algorithm in _children(self._root / "blobs"):
            found += [path for path in _children(algorithm) if path.name not in blobs]
        return found


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _layers(record: Record) -> dict[str, int]:
    return {f"layer {part.digest}": part.size_bytes for part in record.layers}


def _parts(record: Record) -> dict[str, int]:
    return _layers(record) | {part.digest: part.size_bytes for part in record.blobs}


def _remove(trash: list[Path], partial: Path) -> None:
    for path in trash:
        shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        sweep(partial)
