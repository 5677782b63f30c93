"""What the agent must know of an attempt after its own death, a small file each: the Engine keeps the
container, its output and its exit code, and this says what was wanted and what has been told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from towline.core.commands import AttemptUpdate
from towline.runtime.port import Plan


class Record(Struct, kw_only=True):
    """``starting``: the Engine may have been asked to start it. ``started_ms`` is unix ms, to be told;
    its time counts from ``since_ms`` and it is killed at ``kill_ms``, both CLOCK_BOOTTIME, which nobody sets.
    ``cleaned``: nothing of it is left but its logs and artifacts."""

    plan: Plan
    starting: bool = False
    started_ms: int | None = None
    since_ms: int | None = None
    stop: str | None = None
    kill_ms: int | None = None
    termed: bool = False
    update: AttemptUpdate | None = None
    cleaned: bool = False
    forgotten: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


class Records:
    """Written by a rename, so that a reader meets the old or the new one, whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Iterator[Record]:
        """All of them. One that this build cannot read is left out: its container, if any, is unknown."""
        if not self._folder.is_dir():
            return
        for file in sorted(self._folder.iterdir()):
            if file.suffix == ".new":
                file.unlink()
                continue
            try:
                yield _decoder.decode(file.read_bytes())
            except msgspec.DecodeError:
                file.unlink()

    def save(self, record: Record) -> None:
        """Raises OSError."""
        path = self._path(record)
        data = _encoder.encode(record)
        fresh = f"{path}.new"
        try:
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
        os.replace(fresh, path)

    def remove(self, record: Record) -> None:
        Path(self._path(record)).unlink(missing_ok=True)

    def _path(self, record: Record) -> str:
        return f"{self._folder}/{record.plan.attempt}"
