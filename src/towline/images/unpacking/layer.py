"""Unpacks one layer into a folder of its own. Nothing outside of it is ever touched.

Every path is walked from the folder's descriptor, component by component, and no link is followed:
a layer whose files lie behind a link that it brings itself is refused. Device nodes are refused.
Whiteouts (https://github.com/opencontainers/image-spec/blob/main/layer.md) are noted, not made.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from towline.images.unpacking.blob import Blob, Refused, Spent

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
_XATTR = "SCHILY.xattr."
_MAX_DEPTH = 200
_MAX_ID = 2**32 - 2
_MAX_TIME_S = 2**33
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Unpacked(NamedTuple):
    """A layer's content besides its files. Paths have no leading slash.

    ``removed`` and ``opaque``: what it hides of the layers below. ``implied``: folders that it
    names only as part of a path, so that their mode and owner are those of the layers below.
    """

    size_bytes: int
    files: int
    removed: list[str]
    opaque: list[str]
    implied: list[str]


class _Folder(NamedTuple):
    path: str
    mode: int
    mtime_ns: int


def unpack_layer(blob: Blob, target: Path, spent: Spent) -> Unpacked:
    """Unpack into the existing empty folder ``target``. Raises Refused; OSError where the disk fails."""
    root = os.open(target, _FOLDER)
    layer = _Layer(root, spent)
    try:
        for entry in _entries(blob):
            layer.add(entry, blob)
        blob.finish()
        layer.finish()
    finally:
        layer.close()
        os.close(root)
    return Unpacked(layer.size_bytes, layer.files, layer.removed, sorted(layer.opaque), sorted(layer.implied))


class _Archive(tarfile.TarFile):
    """Gives its entries to ``_entries`` alone: ``next`` would keep them all, and take a damaged header
    for the archive's end."""

    def next(self) -> None:
        return None


def _entries(blob: Blob) -> Iterator[tarfile.TarInfo]:
    archive = _Archive(fileobj=blob, mode="r", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
    while True:
        try:
            blob.seek(archive.offset)
            entry = tarfile.TarInfo.fromtarfile(archive)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            return
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise Refused(f"its archive is damaged ({error})") from None
        yield entry


class _Layer:
    def __init__(self, root: int, spent: Spent) -> None:
        self._root = root
        self._spent = spent
        self._mine = os.geteuid(), os.getegid()
        self._stack: list[tuple[str, int]] = []
        """The open folders from below the root to the one used last."""
        self._folders: dict[str, _Folder] = {}
        self.size_bytes = 0
        self.files = 0
        self.removed: list[str] = []
        self.opaque: set[str] = set()
        self.implied: set[str] = set()

    def close(self) -> None:
        self._leave(0)

    # --- paths ------------------------------------------------------------------------------------
    def _parts(self, name: str) -> list[str]:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise Refused(f"its path {_show(name)} climbs out with '..'")
        if "\0" in name or len(parts) > _MAX_DEPTH or any(len(os.fsencode(part)) > 255 for part in parts):
            raise Refused(f"its path {_show(name)} is none, or is too long")
        return parts

    def _enter(self, parts: list[str], *, create: bool) -> int:
        """The descriptor of a folder, which stays open until another branch is entered."""
        same = 0
        while same < min(len(parts), len(self._stack)) and self._stack[same][0] == parts[same]:
            same += 1
        self._leave(same)
        for part in parts[same:]:
            at = self._stack[-1][1] if self._stack else self._root
            try:
                handle = os.open(part, _FOLDER, dir_fd=at)
            except FileNotFoundError:
                if not create:
                    raise
                os.mkdir(part, 0o755, dir_fd=at)
                self.implied.add("/".join([name for name, _ in self._stack] + [part]))
                handle = os.open(part, _FOLDER, dir_fd=at)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise Refused(
                        f"its path {_show('/'.join(parts))} goes through {_show(part)}, which is no folder"
                    ) from None
                raise
            self._stack.append((part, handle))
        return self._stack[-1][1] if self._stack else self._root

    def _leave(self, depth: int) -> None:
        while len(self._stack) > depth:
            os.close(self._stack.pop()[1])

    # --- entries ----------------------------------------------------------------------------------
    def add(self, entry: tarfile.TarInfo, blob: Blob) -> None:
        self._spent.add_entry()
        parts = self._parts(entry.name)
        if not 0 <= entry.uid <= _MAX_ID or not 0 <= entry.gid <= _MAX_ID:
            raise Refused(f"the owner of {_show(entry.name)} is {entry.uid}:{entry.gid}")
        if not parts:
            if not entry.isdir():
                raise Refused("its root is no folder")
            self._own(self._root, entry)
            self._folders[""] = _folder("", entry)
            return
        *above, name = parts
        if name.startswith(_WHITEOUT):
            self._whiteout(above, name)
            return
        at = self._enter(above, create=True)
        if entry.isdir():
            self._add_folder(entry, parts, at)
            return
        self._make_room(at, name, len(above))
        if entry.isreg():
            self._add_file(entry, name, at, blob)
        elif entry.issym():
            self._add_link(entry, name, at)
        elif entry.islnk():
            self._add_hard_link(entry, above, name)
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=at)
            self._own_path(at, name, entry)
            os.chmod(name, stat.S_IMODE(entry.mode), dir_fd=at)
        else:
            kind = (
                "a device node" if entry.ischr() or entry.isblk() else f"of the unknown kind {entry.type!r}"
            )
            raise Refused(f"its entry {_show(entry.name)} is {kind}")
        self.files += 1

    def _whiteout(self, above: list[str], name: str) -> None:
        path = "/".join(above)
        hidden = name.removeprefix(_WHITEOUT)
        if name == _OPAQUE:
            self.opaque.add(path)
        elif hidden in ("", ".", ".."):
            raise Refused(f"its whiteout {_show(name)} names nothing")
        elif not name.startswith(_AUFS):
            self.removed.append("/".join([*above, hidden]))

    def _make_room(self, at: int, name: str, depth: int) -> None:
        """What came earlier under the same name is replaced."""
        try:
            status = os.stat(name, dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            path = "/".join([part for part, _ in self._stack[:depth]] + [name])
            self._leave(depth)
            shutil.rmtree(name, dir_fd=at)
            for other in [one for one in self._folders if one == path or one.startswith(f"{path}/")]:
                del self._folders[other]
        else:
            os.unlink(name, dir_fd=at)

    def _add_folder(self, entry: tarfile.TarInfo, parts: list[str], at: int) -> None:
        name, path = parts[-1], "/".join(parts)
        try:
            os.mkdir(name, 0o755, dir_fd=at)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=at)
                os.mkdir(name, 0o755, dir_fd=at)
        self.implied.discard(path)
        self._folders[path] = _folder(path, entry)
        if (entry.uid, entry.gid) != self._mine or _xattrs(entry):
            handle = os.open(name, _FOLDER, dir_fd=at)
            try:
                self._own(handle, entry)
            finally:
                os.close(handle)

    def _add_file(self, entry: tarfile.TarInfo, name: str, at: int, blob: Blob) -> None:
        mode = stat.S_IMODE(entry.mode)
        handle = os.open(name, _NEW_FILE, mode & 0o777, dir_fd=at)
        try:
            if entry.sparse is None:
                for piece in blob.pieces(entry.size):
                    _write(handle, piece)
            else:
                self._fill_holes(entry, handle, blob)
            self._own(handle, entry)
            if mode & 0o7000:
                os.fchmod(handle, mode)
            os.utime(handle, ns=(_time_ns(entry), _time_ns(entry)))
        finally:
            os.close(handle)
        self.size_bytes += entry.size

    def _fill_holes(self, entry: Any, handle: int, blob: Blob) -> None:
        """A sparse file: the holes cost nothing here, but somebody will read them."""
        self._spent.add_bytes(max(0, entry.size))
        os.ftruncate(handle, entry.size)
        for offset, size in entry.sparse:
            if offset < 0 or size < 0 or offset + size > entry.size:
                raise Refused(f"the sparse file {_show(entry.name)} is damaged")
            os.lseek(handle, offset, os.SEEK_SET)
            for piece in blob.pieces(size):
                _write(handle, piece)

    def _add_link(self, entry: tarfile.TarInfo, name: str, at: int) -> None:
        """Where it points to counts only inside of the container."""
        if not entry.linkname or "\0" in entry.linkname or len(os.fsencode(entry.linkname)) > 4095:
            raise Refused(f"its link {_show(entry.name)} leads nowhere")
        os.symlink(entry.linkname, name, dir_fd=at)
        self._own_path(at, name, entry)
        os.utime(name, ns=(_time_ns(entry), _time_ns(entry)), dir_fd=at, follow_symlinks=False)

    def _add_hard_link(self, entry: tarfile.TarInfo, above: list[str], name: str) -> None:
        *source_above, source = self._parts(entry.linkname) or [""]
        missing = Refused(
            f"its hard link {_show(entry.name)} leads to {_show(entry.linkname)}, "
            "which is no file of this layer"
        )
        if not source:
            raise missing
        try:
            source_at = os.dup(self._enter(source_above, create=False))
        except FileNotFoundError:
            raise missing from None
        try:
            at = self._enter(above, create=True)
            os.link(source, name, src_dir_fd=source_at, dst_dir_fd=at, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EPERM, errno.EISDIR):
                raise missing from None
            raise
        finally:
            os.close(source_at)

    # --- owners, modes and times --------------------------------------------------------------------
    def _own(self, handle: int, entry: tarfile.TarInfo) -> None:
        if self._mine[0] == 0 and (entry.uid, entry.gid) != self._mine:
            os.fchown(handle, entry.uid, entry.gid)
        for name, value in _xattrs(entry):
            # Not every file system has them, and a container can do without.
            with contextlib.suppress(OSError):
                os.setxattr(handle, name, value)

    def _own_path(self, at: int, name: str, entry: tarfile.TarInfo) -> None:
        if self._mine[0] == 0 and (entry.uid, entry.gid) != self._mine:
            os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)

    def finish(self) -> None:
        """Modes and times of folders, the deepest first: before, they were written in."""
        for folder in sorted(self._folders.values(), key=lambda one: -one.path.count("/")):
            parts = folder.path.split("/") if folder.path else []
            handle = self._enter(parts, create=False)
            os.fchmod(handle, folder.mode)
            os.utime(handle, ns=(folder.mtime_ns, folder.mtime_ns))


def _folder(path: str, entry: tarfile.TarInfo) -> _Folder:
    return _Folder(path, stat.S_IMODE(entry.mode), _time_ns(entry))


def _time_ns(entry: tarfile.TarInfo) -> int:
    return int(min(max(entry.mtime, 0), _MAX_TIME_S) * 1_000_000_000)


def _xattrs(entry: tarfile.TarInfo) -> list[tuple[str, bytes]]:
    """Those that belong to the file itself: none of ours, of the overlay's or of a security module's."""
    if not entry.pax_headers:
        return []
    found: list[tuple[str, bytes]] = []
    for key, value in entry.pax_headers.items():
        name = key.removeprefix(_XATTR)
        plain = name.startswith("user.") and not name.startswith("user.overlay.")
        if name != key and (plain or name == "security.capability"):
            found.append((name, value.encode("utf-8", "surrogateescape")))
    return found


def _write(handle: int, piece: memoryview) -> None:
    while len(piece):
        piece = piece[os.write(handle, piece) :]


def _show(name: str) -> str:
    return repr(name[:200])
