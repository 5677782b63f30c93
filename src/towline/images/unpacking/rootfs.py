"""Puts layers together to one folder by hard links: no content is copied, and a container's overlay
has one lower layer, however many the image has. Layers are shared between images."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path
from typing import NamedTuple

from towline.images.unpacking.layer import Unpacked

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Layer(NamedTuple):
    files: Path
    content: Unpacked


def compose(layers: list[Layer], target: Path) -> None:
    """Make ``target`` of the layers, the lowest first. Raises OSError."""
    target.mkdir(mode=0o755)
    root = os.open(target, _FOLDER)
    try:
        for layer in layers:
            _hide(root, layer.content)
            source = os.open(layer.files, _FOLDER)
            try:
                _merge(source, root, "", frozenset(layer.content.implied))
            finally:
                os.close(source)
    finally:
        os.close(root)


def _hide(root: int, content: Unpacked) -> None:
    """Remove what the layer hides of those below it."""
    for path in content.removed:
        *above, name = path.split("/")
        with _folder(root, above) as at:
            if at is not None:
                _remove(at, name)
    for path in content.opaque:
        with _folder(root, path.split("/") if path else []) as at:
            if at is not None:
                for name in os.listdir(at):  # noqa: PTH208 - a descriptor
                    _remove(at, name)


@contextlib.contextmanager
def _folder(root: int, parts: list[str]):  # type: ignore[no-untyped-def]
    """The descriptor of a folder below the root; None where there is none. Links are not followed."""
    handle = os.dup(root)
    try:
        for part in parts:
            deeper = os.open(part, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = deeper
    except OSError as error:
        os.close(handle)
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _remove(at: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=at)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=at)


def _merge(source: int, target: int, path: str, implied: frozenset[str]) -> None:
    """Link all of one folder into another one, which is there already."""
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _merge_folder(source, target, entry.name, f"{path}{entry.name}", implied)
            else:
                _link(source, target, entry.name)
    if path.rstrip("/") not in implied:
        _same_metadata(source, target)


def _merge_folder(source: int, target: int, name: str, path: str, implied: frozenset[str]) -> None:
    fresh = True
    try:
        os.mkdir(name, 0o755, dir_fd=target)
    except FileExistsError:
        fresh = not stat.S_ISDIR(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode)
        if fresh:
            os.unlink(name, dir_fd=target)
            os.mkdir(name, 0o755, dir_fd=target)
    below = os.open(name, _FOLDER, dir_fd=source)
    try:
        into = os.open(name, _FOLDER, dir_fd=target)
        try:
            _merge(below, into, f"{path}/", implied - {path} if fresh else implied)
        finally:
            os.close(into)
    finally:
        os.close(below)


def _link(source: int, target: int, name: str) -> None:
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        _remove(target, name)
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        _copy(source, target, name)


def _copy(source: int, target: int, name: str) -> None:
    """A file has as many names as its file system allows: this one is a copy."""
    origin = f"/proc/self/fd/{source}/{name}"
    shutil.copy2(origin, f"/proc/self/fd/{target}/{name}", follow_symlinks=False)
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)


def _same_metadata(source: int, target: int) -> None:
    """The upper layer's folder stands for the lower one's, with its owner, mode, times and attributes."""
    status = os.fstat(source)
    if os.geteuid() == 0:
        os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        with contextlib.suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))
