"""What a server has of its nodes' output, by the files of its home."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def kept_bytes(home: Path) -> int:
    """Of open segments, and of those that have moved to the object store, which is a folder of the home."""
    found: dict[str, int] = {}
    for folder in ("output", "objects/output"):
        for path in (home / folder).glob("*.seg"):
            with suppress(FileNotFoundError):  # it has moved meanwhile
                found[path.name] = path.stat().st_size
    return sum(found.values())
