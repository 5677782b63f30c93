"""Empty folders that are used again: most attempts leave both of theirs as they were.

To rename a folder costs a few microseconds; to remove one and make another can wait a millisecond for
the file system's journal while something else on the disk is fsyncing, and a database is.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from towline.runtime.port import StartFailed

_MOST = 128


class Folders:
    """``take`` and ``give_back`` folders of a node directory; the spare ones lie in its ``spare``."""

    def __init__(self, node_dir: str) -> None:
        self._home = Path(node_dir, "spare")
        self._home.mkdir(exist_ok=True)
        self._spare: list[str] = []
        self._next = 0
        for path in self._home.iterdir():
            with contextlib.suppress(OSError):
                path.rmdir()
        umask = os.umask(0)
        os.umask(umask)
        self._fresh = (stat.S_IFDIR | 0o777 & ~umask, os.geteuid(), os.getegid())

    def take(self, path: str) -> None:
        """Make an empty folder there, unless there is one. Raises StartFailed."""
        try:
            self._make(path)
        except FileExistsError:
            return
        except FileNotFoundError:
            try:
                Path(path).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StartFailed(f"{path} cannot be made: {error.strerror}") from error
        except OSError as error:
            raise StartFailed(f"{path} cannot be made: {error.strerror}") from error

    def _make(self, path: str) -> None:
        if self._spare and not os.path.lexists(path):
            spare = self._spare.pop()
            try:
                os.rename(spare, path)
                return
            except OSError:
                self._spare.append(spare)
        os.mkdir(path)

    def give_back(self, path: str) -> bool:
        """Take the folder away if it is empty; whether it is gone."""
        try:
            if self._reusable(path):
                spare = f"{self._home}/{self._next}"
                self._next += 1
                os.rename(path, spare)
                self._spare.append(spare)
            else:
                os.rmdir(path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _reusable(self, path: str) -> bool:
        """Whether it is as it was made, and can be found again by a rename."""
        if len(self._spare) >= _MOST or os.listdir(path):
            return False
        found = os.lstat(path)
        return (found.st_mode, found.st_uid, found.st_gid) == self._fresh
