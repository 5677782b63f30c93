"""What is in the store: one small file an image, whose time of change is when it was last used.

records/sha256-….json     an image: its names, its settings, its layers
blobs/sha256/…            what was pulled, as it came
layers/sha256-…/          an unpacked layer: files/ and content.json
unpacked/sha256-…/        the root of an image of several layers, hard links into them
partial/                  what is half done
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from towline.images.layout import ImageConfig

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TOUCH_EVERY_S = 60.0

Signature = tuple[int, int, int]
"""(time of change in ns, size, inode) of the file that a name was read from."""


class Part(Struct, frozen=True, array_like=True):
    """A layer by its diff id, or a blob by its digest."""

    digest: str
    size_bytes: int


class Record(Struct, kw_only=True):
    """An image that is ready. ``digest`` is what a task is pinned to, ``manifest`` the native image of
    it where that is an index. ``boot``: of which boot it is, while it may not be on the disk yet."""

    digest: str
    manifest: str
    names: dict[str, Signature | None]
    config: ImageConfig
    layers: tuple[Part, ...]
    blobs: tuple[Part, ...]
    rootfs: str
    pulled_at: int
    boot: str | None


class Records:
    """All records of a store, in memory and on the disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._all: dict[str, Record] = {}
        self._used: dict[str, float] = {}

    def load(self) -> None:
        """Read all. Those that a crash of the machine may have cut short, or that do not read, go."""
        boot = boot_id()
        for path in self._folder.glob("*.json"):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=Record)
                used = path.stat().st_mtime
            except (OSError, msgspec.DecodeError):
                record, used = None, 0.0
            if record is None or record.boot not in (None, boot) or path != self._path(record.digest):
                path.unlink(missing_ok=True)
                continue
            self._all[record.digest] = record
            self._used[record.digest] = used

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(list(self._all.values()))

    def get(self, digest: str) -> Record | None:
        return self._all.get(digest)

    def named(self, name: str) -> Record | None:
        """The image that a name stood for when it was last asked for."""
        return next((one for one in self._all.values() if name in one.names), None)

    def used_s(self, digest: str) -> float:
        """Unix time in seconds."""
        return self._used.get(digest, 0.0)

    def put(self, record: Record) -> None:
        """Keep a new or changed record; a name of it is taken from all others. Raises OSError."""
        for other in self._all.values():
            gone = [name for name in other.names if name in record.names and other.digest != record.digest]
            for name in gone:
                del other.names[name]
            if gone:
                self._write(other)
        self._all[record.digest] = record
        self._write(record)
        self._used[record.digest] = time.time()

    def put_quietly(self, record: Record) -> None:
        """Keep a change that is no use of the image; where the disk is full, until the next start only."""
        with suppress(OSError):
            self._write(record)

    def touch(self, digest: str) -> None:
        """It is used now."""
        now_s = time.time()
        if now_s - self.used_s(digest) > _TOUCH_EVERY_S:
            with suppress(OSError):
                os.utime(self._path(digest))
        self._used[digest] = now_s

    def remove(self, digest: str) -> None:
        del self._all[digest]
        self._used.pop(digest, None)
        self._path(digest).unlink(missing_ok=True)

    def flushed(self, digest: str) -> None:
        """It is on the disk, and so is all that belongs to it."""
        record = self._all.get(digest)
        if record is not None and record.boot is not None:
            record.boot = None
            self._write(record)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest.replace(':', '-')}.json"

    def _write(self, record: Record) -> None:
        path = self._path(record.digest)
        before = path.stat().st_mtime_ns if path.exists() else None
        handle, fresh = tempfile.mkstemp(dir=self._folder, prefix=".")
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - texts, and there are many
                file.write(msgspec.json.encode(record))
            if before is not None:
                os.utime(fresh, ns=(before, before))
            os.replace(fresh, path)  # noqa: PTH105 - texts, and there are many
        except BaseException:
            os.unlink(fresh)  # noqa: PTH108 - texts, and there are many
            raise


def boot_id() -> str:
    return _BOOT_ID.read_text().strip()
