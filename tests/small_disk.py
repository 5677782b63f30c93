"""A small disk of a test's own, which can be full: a file system in memory. It takes the rights to mount.

with SmallDisk(tmp_path / "disk", "4m") as disk:
    disk.fill()
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Self

_PIECE_BYTES = 1 << 16


class SmallDisk:
    """At ``folder``, which is made where it is not there; ``size`` and ``options`` as tmpfs takes them."""

    def __init__(self, folder: Path, size: str, *options: str, mode: int = 0o700) -> None:
        folder.mkdir(mode=mode, exist_ok=True)
        self.folder = folder
        self._ballast = folder / "ballast"
        asked = ",".join([f"size={size}", f"mode={mode:o}", *options])
        subprocess.run(["mount", "-t", "tmpfs", "-o", asked, "towline-test", folder], check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()

    def fill(self, but_bytes: int = 0) -> None:
        """Leave so many bytes free: not a single one, where nothing is said."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while (more := self._free_bytes() - but_bytes) > 0:
                file.write(bytes(min(more, _PIECE_BYTES)))

    def free(self) -> None:
        """Give back what ``fill`` has taken. Raises FileNotFoundError where that is not there."""
        self._ballast.unlink()

    def resize(self, size: str) -> None:
        self._remount(f"size={size}")

    def read_only(self) -> None:
        self._remount("ro")

    def writable(self) -> None:
        self._remount("rw")

    def unmount(self) -> None:
        """What is still open of it stays until it is closed."""
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def _free_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def _remount(self, option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", self.folder], check=True)
