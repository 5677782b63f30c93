"""Whose the files are that an attempt shares with this machine: while it runs, of whom its command runs
as inside; at its end, of the submitting user."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import suppress

from towline.agent.docker.client import Engine, EngineRefused
from towline.runtime.docker.spec import DockerData, Traits, read_data
from towline.runtime.port import Plan

_MAX_PASSWD_BYTES = 1 << 20
_ROOT = ("", "0", "root", "0:0")


class Owners:
    """``give`` is told of containers that are made and do not run yet: what their users are called is in
    the image, and is asked for once an image."""

    def __init__(self, engine: Engine, traits: Traits) -> None:
        self._engine = engine
        self._first = traits.first_ids
        self._known: dict[tuple[str, str], tuple[int, int] | None] = {}

    async def give(self, name: str, plan: Plan) -> None:
        """TOW_OUT and the secrets to the container's user. Raises EngineGone, OSError."""
        if os.geteuid() != 0:
            _open_to_all(plan)  # root inside has no rights beyond those of any user
            return
        data = read_data(plan)
        if data.user in _ROOT and self._first == (0, 0):
            return
        owner = await self._owner(name, data)
        if owner is None:
            _open_to_all(plan)
            return
        uid, gid = owner[0] + self._first[0], owner[1] + self._first[1]
        for path in (plan.out, *_below(plan.secrets)):
            os.chown(path, uid, gid, follow_symlinks=False)

    async def _owner(self, name: str, data: DockerData) -> tuple[int, int] | None:
        if data.user in _ROOT:
            return 0, 0
        key = (data.image, data.user)
        if key not in self._known:
            self._known[key] = await self._find(name, data.user)
        return self._known[key]

    async def _find(self, name: str, user: str) -> tuple[int, int] | None:
        """None where the image does not tell, in which case the Engine will refuse the start."""
        who, _, group = user.partition(":")
        if who.isdecimal() and (group.isdecimal() or not group):
            return int(who), int(group or 0)
        with suppress(EngineRefused, tarfile.TarError, ValueError, IndexError, OSError):
            for line in _only_file(await self._engine.read_file(name, "/etc/passwd")).splitlines():
                fields = line.split(":")
                if who in (fields[0], fields[2]):
                    return int(fields[2]), int(group) if group.isdecimal() else int(fields[3])
        return None


def take_back(plan: Plan) -> None:
    """What is in TOW_OUT becomes the submitting user's. It may be much: not for the loop's thread."""
    if os.geteuid() != 0:
        return
    uid, gid = read_data(plan).owner
    for path in _below(plan.out):
        with suppress(OSError):
            found = os.lstat(path)
            if (found.st_uid, found.st_gid) != (uid, gid):
                os.chown(path, uid, gid, follow_symlinks=False)


def _below(folder: str) -> Iterator[str]:
    """The folder and all that is in it; nothing where there is none."""
    if not folder or not os.path.lexists(folder):
        return
    yield folder
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield f"{top}/{name}"


def _open_to_all(plan: Plan) -> None:
    """Their parents let nobody else in."""
    os.chmod(plan.out, 0o777)
    for path in _below(plan.secrets):
        os.chmod(path, 0o755 if os.path.isdir(path) else 0o444)


def _only_file(archive: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            if file is not None:
                return file.read(_MAX_PASSWD_BYTES).decode(errors="replace")
    return ""
