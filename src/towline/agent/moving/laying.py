"""A tree on this node, made of what the server has sent of it.

Nothing outside of the tree is touched, whatever the manifest says, and no link is followed. Everybody may
read what is in it: it lies in a folder that only the agent's user can enter.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager

from towline.agent.fetching.tree import open_folder
from towline.wire.artifacts import FILE, FOLDER, Artifact, parts_of
from towline.wire.manifest import Manifest

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def lay(root: str, manifest: Manifest, blobs: Iterator[bytes]) -> None:
    """Fill ``root``, an empty folder, with what ``manifest`` names; ``blobs`` are its content, checked.
    Raises OSError, and ValueError where the content is shorter."""
    content = _Content(blobs)
    folders: list[Artifact] = []
    with open_folder(root, None) as top:
        for entry in manifest.entries:
            if entry.kind == FOLDER:
                _make_folder(top, entry)
                folders.append(entry)
            elif entry.kind == FILE:
                _write(top, entry, content)
            elif entry.target is not None:
                _link(top, entry.path, entry.target)
        for entry in reversed(folders):  # what may not be written any more is filled by now
            _finish_folder(top, entry)


class _Content:
    """Hands out the content in the pieces that files need."""

    def __init__(self, blobs: Iterator[bytes]) -> None:
        self._blobs = blobs
        self._held = memoryview(b"")

    def take(self, most: int) -> memoryview:
        while not self._held:
            blob = next(self._blobs, None)
            if blob is None:
                raise ValueError("the content ends before its files do")
            self._held = memoryview(blob)
        taken, self._held = self._held[:most], self._held[most:]
        return taken


def _readable(mode: int) -> int:
    """For whatever user reads it, in whatever user namespace."""
    return mode | 0o444 | (0o111 if mode & 0o100 else 0)


def _make_folder(top: int, entry: Artifact) -> None:
    with _above(top, entry.path) as (folder, name):
        os.mkdir(name, 0o700, dir_fd=folder)


def _finish_folder(top: int, entry: Artifact) -> None:
    with _above(top, entry.path) as (folder, name), open_folder(name, folder) as made:
        os.fchmod(made, _readable(entry.mode) | 0o111)
        _set_time(made, entry)


def _write(top: int, entry: Artifact, content: _Content) -> None:
    with _above(top, entry.path) as (folder, name):
        descriptor = os.open(name, _NEW, 0o600, dir_fd=folder)
    try:
        left = entry.size_bytes
        while left:
            piece = content.take(left)
            while piece:
                written = os.write(descriptor, piece)
                piece, left = piece[written:], left - written
        os.fchmod(descriptor, _readable(entry.mode))
        _set_time(descriptor, entry)
    finally:
        os.close(descriptor)


def _link(top: int, path: str, target: str) -> None:
    with _above(top, path) as (folder, name):
        os.symlink(target, name, dir_fd=folder)


def _set_time(descriptor: int, entry: Artifact) -> None:
    at_ns = min(max(entry.modified_ms, 0), 2**53) * 1_000_000
    os.utime(descriptor, ns=(at_ns, at_ns))


@contextmanager
def _above(top: int, path: str) -> Generator[tuple[int, str], None, None]:
    """The open folder that a path lies in, and its name there."""
    *folders, name = parts_of(path)
    with ExitStack() as opened:
        folder = top
        for one in folders:
            folder = opened.enter_context(open_folder(one, folder))
        yield folder, name
