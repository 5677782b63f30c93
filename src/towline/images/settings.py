"""What an operator may tune about a node's images."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from msgspec import Struct

_DISK_SHARE = 5


class ImageSettings(Struct, frozen=True, kw_only=True):
    pull_timeout_s: float = 300.0
    """A pull that brings nothing for so long is given up."""
    pull_total_s: float = 3600.0
    """A pull may take so long altogether."""
    max_bytes: int | None = None
    """What all images together may take; None: a fifth of the disk that they are on."""
    max_files: int = 2_000_000
    """Files in one image."""
    insecure_registries: tuple[str, ...] = ()
    """Registries without TLS, or whose certificate nobody can check, besides those of this machine."""

    def budget_bytes(self, root: Path) -> int:
        """``max_bytes``, or what stands for it on the disk of ``root``."""
        if self.max_bytes is not None:
            return self.max_bytes
        import os

        disk = os.statvfs(root)
        return disk.f_blocks * disk.f_frsize // _DISK_SHARE

    def is_insecure(self, registry: str) -> bool:
        return registry in self.insecure_registries or is_loopback(registry)


def is_loopback(registry: str) -> bool:
    """Whether ``HOST[:PORT]`` is this machine, by its name alone: nobody else can answer there."""
    host = registry.rpartition("]")[0].removeprefix("[") or registry.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
