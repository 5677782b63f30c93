"""What a server asks of the artifacts on a node: a page of what there is, or a piece of a file.

Every call stands for itself, and the next piece is asked for when the one before has been passed on: a
slow reader holds up nobody, and no side keeps more than a piece of a file.
"""

from __future__ import annotations

from msgspec import Struct

PIECE_BYTES = 512 * 1024
FAILURE = 2**32 - 1
"""In place of a piece's length, where a user reads a file: it ends here, and the next piece is a sentence
that says why."""
PAGE_ENTRIES = 1_000

FILE, FOLDER, OTHER = "file", "folder", "other"
MAX_DEPTH = 64

Parts = tuple[str, ...]


def parts_of(path: str) -> Parts:
    """The names of a path below TOW_OUT. Raises ValueError for one that leads anywhere else."""
    parts = tuple(path.split("/"))
    if "\0" in path or any(part in ("", ".", "..") for part in parts) or len(parts) > MAX_DEPTH:
        raise ValueError(f"{path[:200]!r} is no path below TOW_OUT, such as part-0 or tables/part-0")
    return parts


class Artifact(Struct, frozen=True, kw_only=True):
    """``path`` is relative to TOW_OUT, with slashes. ``kind``: file, folder or other, which is nothing to
    fetch: ``why`` says what it is. ``modified_ms`` is unix ms; ``mode`` are the permission bits. ``target``
    is where a symbolic link leads, which a task that gets it as input has too."""

    path: str
    kind: str
    size_bytes: int
    modified_ms: int
    mode: int
    why: str | None = None
    target: str | None = None


class ArtifactsCall(Struct, frozen=True, kw_only=True, tag="artifacts_call"):
    """Of an element, or of one attempt of it that did not succeed (``attempt``). Without ``path`` a page of
    entries, those behind ``after`` (an answer's ``following``); else up to ``limit`` bytes of a file from
    ``offset`` on."""

    request: int
    job: str
    task: int
    index: int
    attempt: int | None = None
    after: bytes = b""
    path: str | None = None
    offset: int = 0
    limit: int = PIECE_BYTES


class ArtifactsAnswer(Struct, frozen=True, kw_only=True, tag="artifacts"):
    """``following``: more entries follow, behind this one. ``digest`` is the SHA-256 of ``data``. ``version``
    changes when the file does, as far as the file system tells. ``error`` is a sentence, ``kind`` then
    not_found or refused."""

    request: int
    entries: tuple[Artifact, ...] = ()
    following: bytes | None = None
    data: bytes = b""
    size_bytes: int = 0
    digest: bytes = b""
    version: str = ""
    error: str | None = None
    kind: str | None = None
