"""Which program this is: what client, server and agent compare in their handshakes."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from towline import __version__


@cache
def build() -> str:
    """The version; in a checkout also a digest of the source files, since they change under one version.

    The digest is of paths, sizes and times of change: about a millisecond, where reading all
    files would cost every command ten. It is taken once a process, at its first call.
    """
    package = Path(__file__).parent
    if not (package.parent.parent / "pyproject.toml").is_file():
        return __version__
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(package.rglob("*.py")):
        try:
            found = path.stat()
        except FileNotFoundError:  # moved away between the listing and here
            continue
        digest.update(f"{path.relative_to(package)} {found.st_size} {found.st_mtime_ns}\n".encode())
    return f"{__version__}+{digest.hexdigest()}"
