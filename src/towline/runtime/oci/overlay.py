"""The root folder of a container: an overlay over its image, mounted by mount(2) itself.

A spawned ``mount`` would cost more than the container's start.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from towline.runtime.linux.mounting import mount
from towline.runtime.linux.trees import READ_ONLY, attach_tree, change_tree, copy_tree, detach, held
from towline.runtime.oci.ids import Ids, Namespaces

ROOTS = "/run/towline-roots"
_MOST_KEPT = 32
_ROOTS_MODE = 0o711
_SPECIAL = frozenset(",:\\")  # what mount(2) reads as its own in an overlay's options
_QUICK_ENTRIES = 200
_QUICK_BYTES = 32 * 1024**2


class MappedImages:
    """Unpacked images as mounts that show their owners moved to a container's ids. They are attached
    nowhere, and kept: to let one go costs more than all else of a start."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._kept: OrderedDict[tuple[str, Ids], tuple[int, int]] = OrderedDict()

    def shown(self, lower: str, ids: Ids) -> int:
        """A descriptor, which stays ours. Raises OSError."""
        inode = os.stat(lower).st_ino
        kept = self._kept.get((lower, ids))
        if kept is not None and kept[1] == inode and os.fstat(kept[0]).st_nlink > 0:
            self._kept.move_to_end((lower, ids))
            return kept[0]
        if kept is not None:  # the image was removed, and came again
            os.close(self._kept.pop((lower, ids))[0])
        tree = self.fresh(lower, ids)
        self._kept[lower, ids] = tree, inode
        if len(self._kept) > _MOST_KEPT:
            os.close(self._kept.popitem(last=False)[1][0])
        return tree

    def fresh(self, lower: str, ids: Ids) -> int:
        """A descriptor of a mount of its own, for the caller to close. Raises OSError."""
        with _opened(lower) as image:
            tree = copy_tree(image, recursive=False)
        try:
            change_tree(tree, READ_ONLY, self._namespaces.of_image(ids))
        except OSError:
            os.close(tree)
            raise
        return tree

    def close(self) -> None:
        while self._kept:
            os.close(self._kept.popitem()[1][0])


class Overlay(NamedTuple):
    """The three folders of an overlay."""

    upper: str
    work: str
    root: str

    def mount(
        self,
        lower: str,
        ids: Ids | None = None,
        images: MappedImages | None = None,
        *,
        attached: bool = False,
        mark: str | None = None,
    ) -> None:
        """Make the folders and mount them over ``lower``, an image's unpacked root, with its owners moved
        to ``ids``, by way of ``images``. Raises OSError. ``attached``: in the only way before
        Linux 6.15. ``mark``: the mount's source, by which it can be found, in an ordinary user's namespace.

        ``volatile`` leaves out every flush to the disk: an upper layer never outlives its container.
        """
        for folder in self[:2]:
            os.mkdir(folder, 0o700)
        _make_root(self.root)
        if ids is None or images is None:
            self._mount(lower, mark)
            return
        if not attached:
            try:
                self._mount(f"/proc/self/fd/{images.shown(lower, ids)}")
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            else:
                return
        # A layer has to be attached somewhere then: to the root, below the overlay.
        with held(images.fresh(lower, ids)) as tree, _opened(self.root) as root:
            attach_tree(tree, root)
        self._mount(self.root)

    def _mount(self, lower: str, mark: str | None = None) -> None:
        # The upper layer's root stands for the image's own: under our umask others could not enter.
        status = os.stat(lower)
        if mark is None:
            os.chown(self.upper, status.st_uid, status.st_gid)
        os.chmod(self.upper, status.st_mode & 0o7777)
        with ExitStack() as held:
            folders = [held.enter_context(_plain(path)) for path in (lower, self.upper, self.work)]
            options = "lowerdir={},upperdir={},workdir={},volatile".format(*folders)
            if mark is not None:
                options += ",userxattr"
            mount(mark or "overlay", self.root, "overlay", options=options)

    def unmount(self) -> None:
        """Take it away with all that is mounted in it, at once for new openers. Raises OSError."""
        while detach(self.root):
            continue

    def remove(self) -> bool:
        """Remove the folders, nothing being mounted; False where it would take long and is not done."""
        budget = _Budget(_QUICK_ENTRIES, _QUICK_BYTES)
        if not all(_remove_tree(folder, budget) for folder in (self.upper, self.work)):
            return False
        with suppress(FileNotFoundError):
            os.rmdir(self.root)
        return True


def overlay_of(directory: str, name: str) -> Overlay:
    """The layers lie in an attempt's ``directory``; the root, by this name of the machine's, where its
    users can come by: an engine in a user namespace has no rights in a home that is closed to others."""
    return Overlay(f"{directory}/upper", f"{directory}/work", f"{ROOTS}/{name}")


class _Budget:
    def __init__(self, entries: int, size_bytes: int) -> None:
        self.entries = entries
        self.size_bytes = size_bytes

    def spend(self, entry: os.DirEntry[str]) -> bool:
        self.entries -= 1
        if not entry.is_dir(follow_symlinks=False):
            self.size_bytes -= entry.stat(follow_symlinks=False).st_blocks * 512
        return self.entries >= 0 and self.size_bytes >= 0


def _remove_tree(folder: str, budget: _Budget) -> bool:
    """Remove a folder whose users are dead, as far as the budget goes."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not budget.spend(entry):
                    return False
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                elif not _remove_tree(entry.path, budget):
                    return False
        os.rmdir(folder)
    except FileNotFoundError:
        pass
    return True


def _make_root(root: str) -> None:
    with suppress(FileExistsError):  # left by a machine that went down
        try:
            os.mkdir(root)
        except FileNotFoundError:
            os.makedirs(ROOTS, _ROOTS_MODE, exist_ok=True)
            os.chmod(ROOTS, _ROOTS_MODE)  # whatever our umask is
            os.mkdir(root)


@contextmanager
def _plain(path: str) -> Iterator[str]:
    """A name for the folder that mount(2) reads as one: escapes are read differently by each kernel."""
    if _SPECIAL.isdisjoint(path):
        yield path
        return
    with _opened(path) as handle:
        yield f"/proc/self/fd/{handle}"


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    with held(os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as handle:
        yield handle


def _error(target: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), target)
