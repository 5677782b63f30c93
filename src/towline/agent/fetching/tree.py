"""A tree that a container has written, read by somebody with more rights than it had.

Every step goes from a folder's descriptor to a name in it, and follows no link: whatever is renamed or
replaced meanwhile, nothing outside of the tree is reached. Nothing but a regular file is ever opened for
reading: opening a device or a pipe may already do something.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from towline.wire.artifacts import FILE, FOLDER, MAX_DEPTH, OTHER, Artifact, Parts, parts_of

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_NAMED = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def entries(root: str, after: bytes, most: int) -> tuple[list[Artifact], bytes | None]:
    """Up to ``most`` entries behind ``after``, in order of their paths' names, and behind which path more
    follow (None: they do not).

    Raises OSError where ``root`` is no folder that can be read, ValueError.
    """
    found: list[Artifact] = []
    last: Parts = parts_of(os.fsdecode(after)) if after else ()
    with open_folder(root, None) as top:
        for parts, entry in _walk(top, (), last):
            if len(found) == most:
                return found, os.fsencode("/".join(last))
            found.append(entry)
            last = parts
    return found, None


def everything(root: str) -> Iterator[Artifact]:
    """All that there is, folders before what is in them. Raises OSError where ``root`` cannot be read."""
    with open_folder(root, None) as top:
        for _, entry in _walk(top, (), ()):
            yield entry


def _walk(folder: int, above: Parts, after: Parts) -> Iterator[tuple[Parts, Artifact]]:
    """What is below an open folder and behind ``after``; folders come before what is in them."""
    depth = len(above)
    here = after[:depth] == above
    for name in sorted(os.listdir(folder)):
        parts = (*above, name)
        # Of folders before ``after`` nothing is left to tell; one that leads to it is gone into.
        if here and len(after) > depth and name < after[depth]:
            continue
        told = here and after[: depth + 1] == parts
        try:
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(about.st_mode) else None
        except OSError:
            continue  # it has gone meanwhile
        entry = _entry(parts, about, target)
        if not told:
            yield parts, entry
        if entry.kind == FOLDER:
            try:
                with open_folder(name, folder) as below:
                    yield from _walk(below, parts, after)
            except OSError:
                continue


def _entry(parts: Parts, about: os.stat_result, target: str | None) -> Artifact:
    path = "/".join(parts)
    kind, why = OTHER, _what(about.st_mode)
    if stat.S_ISREG(about.st_mode):
        kind, why = FILE, None
    elif stat.S_ISDIR(about.st_mode):
        kind, why = (FOLDER, None) if len(parts) < MAX_DEPTH else (OTHER, "a folder that lies too deep")
    if not _is_text(path):
        path, kind, target = path.encode(errors="backslashreplace").decode(), OTHER, None
        why = "a file whose name is not UTF-8"
    return Artifact(
        path=path,
        kind=kind,
        size_bytes=about.st_size if kind == FILE else 0,
        modified_ms=about.st_mtime_ns // 1_000_000,
        mode=stat.S_IMODE(about.st_mode) & 0o777,
        why=why,
        target=target if target is not None and _is_text(target) else None,
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _what(mode: int) -> str | None:
    kinds = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((word for test, word in kinds if test(mode)), None)


@contextmanager
def open_folder(name: str, above: int | None) -> Generator[int, None, None]:
    descriptor = os.open(name, _FOLDER, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(root: str, path: str, offset: int, limit: int) -> tuple[bytes, int, str]:
    """Bytes of a file, its size, and its version. Raises ValueError, and OSError (ENOENT too for what is
    no regular file)."""
    with open_folder(root, None) as top, opened(top, path) as descriptor:
        data = os.pread(descriptor, limit, offset)
        about = os.fstat(descriptor)
    return data, about.st_size, f"{about.st_ino}.{about.st_size}.{about.st_mtime_ns}"


@contextmanager
def opened(top: int, path: str) -> Generator[int, None, None]:
    """The descriptor of a regular file below an open folder, for reading. Raises as ``read`` does."""
    parts = parts_of(path)
    folder = os.dup(top)
    try:
        for part in parts[:-1]:
            below = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        named = os.open(parts[-1], _NAMED, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        about = os.fstat(named)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"{path!r} is {_what(about.st_mode) or 'a folder'}, and no file")
        # What was looked at is what is opened: the name may lead elsewhere by now.
        descriptor = os.open(f"/proc/self/fd/{named}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(named)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
