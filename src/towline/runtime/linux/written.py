"""How much an attempt has written, looked at piece by piece: a folder may hold millions of files, and who
asks has other things to do."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator


class Written:
    """One look at folders after another; files with several names in it count once a look."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = tuple(folders)
        self._walk: Iterator[int] = iter(())
        self._begun = False
        self._so_far_bytes = 0

    def look(self, entries: int) -> int | None:
        """Go on for so many entries; the bytes on the disk at the end of a look, None before that."""
        if not self._begun:
            self._begun, self._so_far_bytes, self._walk = True, 0, self._sizes()
        for _ in range(entries):
            size_bytes = next(self._walk, None)
            if size_bytes is None:
                self._begun = False
                return self._so_far_bytes
            self._so_far_bytes += size_bytes
        return None

    def _sizes(self) -> Iterator[int]:
        left = list(self._folders)
        seen: set[int] = set()
        while left:
            try:
                with os.scandir(left.pop()) as entries:
                    for entry in entries:
                        yield self._size(entry, left, seen)
            except OSError:
                continue  # it is gone meanwhile

    def _size(self, entry: os.DirEntry[str], left: list[str], seen: set[int]) -> int:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            return 0
        if stat.S_ISDIR(status.st_mode):
            left.append(entry.path)
        elif status.st_nlink > 1:
            if status.st_ino in seen:
                return 0
            seen.add(status.st_ino)
        return status.st_blocks * 512
