"""Trees that somebody hostile has written: what is told of them, and what is never reached through them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from towline.agent.fetching import tree
from towline.agent.fetching.serving import answer_of
from towline.wire.artifacts import ArtifactsCall


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts" / "j1" / "0" / "3"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    return folder


def paths(root: Path, most: int = 100) -> list[str]:
    """All paths, page by page."""
    found: list[str] = []
    after = b""
    while True:
        page, following = tree.entries(str(root), after, most)
        found += [entry.path for entry in page]
        if following is None:
            return found
        after = following


@pytest.mark.parametrize("most", [1, 2, 3, 100])
def test_pages_hold_everything_once_and_in_order(root: Path, most: int) -> None:
    for path in ("b/x/1", "b/x/2", "b/a", "a", "b.txt", "c/d"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    (root / "empty").mkdir()
    (root / os.fsdecode(b"n\xff")).write_text("")
    whole = ["a", "b", "b/a", "b/x", "b/x/1", "b/x/2", "b.txt", "c", "c/d", "empty", "n\\udcff"]
    assert paths(root, most) == whole


def test_what_is_no_file_is_told_and_never_opened(root: Path, tmp_path: Path) -> None:
    (root / "out").symlink_to(tmp_path)
    (root / "secret").symlink_to(tmp_path / "secret")
    os.mkfifo(root / "pipe")
    entries, _ = tree.entries(str(root), b"", 9)
    assert [(e.path, e.kind, e.why) for e in entries] == [
        ("out", "other", "a symbolic link"),
        ("pipe", "other", "a pipe"),
        ("secret", "other", "a symbolic link"),
    ]
    for path in ("secret", "pipe"):
        with pytest.raises(ValueError, match="and no file"):
            tree.read(str(root), path, 0, 99)
    with pytest.raises(OSError, match="directory"):
        tree.read(str(root), "out/secret", 0, 99)


@pytest.mark.parametrize("path", ["../3/a", "/etc/passwd", "a/../b", ".", "", "a//b", "a/", "x\0y"])
def test_paths_that_lead_elsewhere_are_refused(root: Path, path: str) -> None:
    with pytest.raises(ValueError, match="no path below TOW_OUT"):
        tree.read(str(root), path, 0, 99)


def test_a_tree_that_is_replaced_by_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    root.rmdir()
    root.symlink_to(tmp_path)
    with pytest.raises(OSError, match="directory"):
        tree.entries(str(root), b"", 9)


def test_answers_carry_pieces_with_their_digests(root: Path) -> None:
    (root / "part").write_bytes(b"0123456789")
    store = str(root.parents[2])

    piece = answer_of(
        store, ArtifactsCall(request=7, job="j1", task=0, index=3, path="part", offset=4, limit=3)
    )
    assert (piece.request, piece.data, piece.size_bytes) == (7, b"456", 10)
    assert piece.digest == hashlib.sha256(b"456").digest()
    before = piece.version
    (root / "part").write_bytes(b"changed")
    after = answer_of(store, ArtifactsCall(request=7, job="j1", task=0, index=3, path="part"))
    assert after.version != before
    gone = answer_of(store, ArtifactsCall(request=7, job="j1", task=0, index=3, path="no"))
    assert (gone.kind, gone.error) == ("not_found", "There is no file 'no'.")
    bad = answer_of(store, ArtifactsCall(request=7, job="../j1", task=0, index=3))
    assert bad.kind == "refused"
    nothing = answer_of(store, ArtifactsCall(request=7, job="j1", task=0, index=4))
    assert (nothing.entries, nothing.error) == ((), None)
