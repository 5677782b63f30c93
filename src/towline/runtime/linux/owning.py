"""Whose files are: given to another user, never through a symlink."""

from __future__ import annotations

import os
from contextlib import suppress


def own(folder: str, uid: int, gid: int) -> None:
    """Most belong to whom they should, and a change would have to be written to the disk. Raises OSError."""
    status = os.lstat(folder)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(folder, uid, gid, follow_symlinks=False)


def own_all(folder: str, uid: int, gid: int, entries: int) -> bool:
    """Give a folder and all in it to a user, nobody else being at work there; False, with some of it done,
    where there are more than so many entries. What is not there or cannot be given is left."""
    left = [folder]
    with suppress(OSError):
        own(folder, uid, gid)
    while left:
        with suppress(OSError), os.scandir(left.pop()) as found:
            for entry in found:
                entries -= 1
                if entries < 0:
                    return False
                with suppress(OSError):
                    own(entry.path, uid, gid)
                if entry.is_dir(follow_symlinks=False):
                    left.append(entry.path)
    return True
