"""Our seccomp profile for an Engine's containers: the same that the ``oci`` runtime gives."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from towline.runtime.docker.spec import DockerData, Traits
from towline.runtime.seccomp import load_profile, native_machine, oci_section


class Profiles:
    """``folder`` is where files are written for an Engine that reads them there: Podman takes a path in
    the place of Docker's document."""

    def __init__(self, traits: Traits, folder: Path) -> None:
        self._way = traits.seccomp
        self._folder = folder

    def option(self, data: DockerData) -> str | None:
        """What stands behind ``seccomp=``; None: it is left to the Engine. Raises OSError."""
        if self._way is None or data.privileged:
            return None
        capabilities = frozenset(data.capabilities)
        text = _document(capabilities)
        if text is None or self._way == "inline":
            return text
        path = self._folder / f"{'-'.join(('seccomp', *sorted(capabilities)))}.json"
        if not path.exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}")
            fresh.write_text(text)
            fresh.replace(path)
        return os.fspath(path)


@cache
def _document(capabilities: frozenset[str]) -> str | None:
    machine = native_machine()
    return None if machine is None else json.dumps(oci_section(load_profile(machine, capabilities)))
