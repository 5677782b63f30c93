"""From a tree to blobs and back: the same on another node, and nothing outside of it touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from towline.agent.moving import reading
from towline.agent.moving.laying import lay
from towline.agent.moving.reading import Changed, TooMany, content, entries_of
from towline.wire.artifacts import FILE, FOLDER, OTHER, Artifact
from towline.wire.manifest import BLOB_BYTES, Manifest


def entry(path: str, kind: str = FILE, size: int = 0, target: str | None = None) -> Artifact:
    return Artifact(path=path, kind=kind, size_bytes=size, modified_ms=0, mode=0o600, target=target)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(root: Path) -> None:
    (root / "d/empty").mkdir(parents=True)
    (root / "d/run").write_text("#!/bin/sh")
    (root / "d/run").chmod(0o4755)
    (root / "large").write_bytes(os.urandom(1000) * 10_000)
    (root / "none").write_bytes(b"")
    (root / "z").write_bytes(b"z" * 100)
    (root / "z").chmod(0o600)
    (root / "link").symlink_to("d/run")
    os.utime(root / "z", (5, 5))


def test_a_tree_is_the_same_at_its_other_end(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    fill(there)
    os.mkfifo(there / "pipe")
    (there / os.fsdecode(b"n\xff")).write_text("x")
    entries = entries_of(str(there))
    blobs = list(content(str(there), entries))
    assert [len(blob) for blob in blobs[:-1]] == [BLOB_BYTES]
    size = sum(each.size_bytes for each in entries)
    lay(str(here), Manifest(entries=entries, size_bytes=size), iter(blobs))
    for path in ("d/run", "large", "none", "z"):
        assert (here / path).read_bytes() == (there / path).read_bytes()
    assert (here / "d/empty").is_dir()
    assert (here / "link").readlink() == Path("d/run")
    assert names(here) == ["d", "large", "link", "none", "z"]
    assert (here / "z").stat().st_mtime == 5
    assert (here / "z").stat().st_mode & 0o7777 == 0o644  # whatever user the next container has
    assert (here / "d/run").stat().st_mode & 0o7777 == 0o755


def test_what_changes_while_it_is_read_is_found(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 100)
    entries = entries_of(str(tmp_path))
    (tmp_path / "x").write_bytes(b"x" * 99)
    with pytest.raises(Changed, match="shorter"):
        list(content(str(tmp_path), entries))
    (tmp_path / "x").write_bytes(b"x" * 101)
    with pytest.raises(Changed, match="longer"):
        list(content(str(tmp_path), entries))
    (tmp_path / "x").unlink()
    (tmp_path / "x").symlink_to("/etc/passwd")
    with pytest.raises(Changed, match="not there any more"):
        list(content(str(tmp_path), entries))


def test_a_tree_has_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_ENTRIES", 2)
    for name in "abc":
        (tmp_path / name).write_text("")
    with pytest.raises(TooMany, match="more than 2 files"):
        entries_of(str(tmp_path))


@pytest.mark.parametrize(
    "entries",
    [
        (entry("out", OTHER, target=".."), entry("out/x", size=1)),
        (entry("out", OTHER, target=".."), entry("out/d", FOLDER)),
        (entry("out", OTHER, target="../outside"), entry("out", size=1)),
        (entry("x", size=1), entry("x/y", FOLDER)),
        (entry("d/x", size=1),),
    ],
)
def test_nothing_is_laid_through_links_or_twice(tmp_path: Path, entries: tuple[Artifact, ...]) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (tmp_path / "outside").write_text("as it was")
    with pytest.raises(OSError):
        lay(str(here), Manifest(entries=entries, size_bytes=1), iter([b"1"]))
    assert names(tmp_path) == ["here", "outside"]
    assert (tmp_path / "outside").read_text() == "as it was"


def test_a_path_that_leads_out_is_laid_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no path below TOW_OUT"):
        lay(str(tmp_path), Manifest(entries=(entry("../x", size=1),), size_bytes=1), iter([b"1"]))


def test_content_that_ends_early_is_no_tree(tmp_path: Path) -> None:
    def short() -> Iterator[bytes]:
        yield b"12"

    with pytest.raises(ValueError, match="ends before"):
        lay(str(tmp_path), Manifest(entries=(entry("x", size=3),), size_bytes=3), short())
