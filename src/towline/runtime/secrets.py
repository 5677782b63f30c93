"""The files in which attempts find their secrets: in memory only, a folder for each attempt.

The agent writes them before it hands the attempt over; the supervisor removes them with all else of it,
and each agent that starts removes those that nobody will. What lies there is never on a disk.

    /run/towline-secrets.UID/NODE/ATTEMPT/          TOKEN …    (or below another file system in memory)
    /run/towline-secrets.UID/NODE/ATTEMPT.output/   what it has printed and is not masked yet
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from towline.errors import NodeError

TARGET = "/run/secrets"
"""Where containers have them."""

_IN_MEMORY = ("tmpfs", "ramfs")
_OUTPUT = ".output"


class SecretFiles:
    """The folders of one node. ``places``: where one may be made, the first that is in memory is taken."""

    def __init__(self, node_dir: str, places: Sequence[str] | None = None) -> None:
        self._node = sha256(os.fsencode(os.path.realpath(node_dir))).hexdigest()[:16]
        self._places = _places() if places is None else tuple(places)
        self._home: str | None = None
        self._made: set[str] = set()

    def write(self, attempt: str, values: Mapping[str, bytes], owner: tuple[int, int] | None) -> str:
        """Make the attempt's folder, which only ``owner`` (None: we) can read; returns its path.

        Raises NodeError where nothing in memory can be written to, and OSError."""
        folder = f"{self._opened()}/{attempt}"
        shutil.rmtree(folder, ignore_errors=True)  # of an agent that died before it handed the plan over
        os.mkdir(folder, 0o700)
        self._made.add(attempt)
        for name, value in values.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(f"{folder}/{name}", flags, 0o400), "wb") as file:
                if owner is not None:
                    os.fchown(file.fileno(), *owner)
                file.write(value)
        if owner is not None:
            os.chown(folder, *owner)
        return folder

    def ended(self, attempt: str) -> None:
        """Remove what was written here for an attempt, as the supervisor has, unless it never had it."""
        if attempt in self._made:
            self._made.discard(attempt)
            remove(f"{self._home}/{attempt}")

    def sweep(self, is_live: Callable[[str], bool]) -> None:
        """Remove what an earlier agent wrote for attempts that are not live (any more)."""
        for place in self._places:
            folder = Path(_ours(place), self._node)
            with suppress(OSError):
                for path in folder.iterdir():
                    if not is_live(path.name.removesuffix(_OUTPUT)):
                        remove(os.fspath(path))

    def _opened(self) -> str:
        if self._home is None or not os.path.isdir(self._home):
            self._home = self._make_home()
        return self._home

    def _make_home(self) -> str:
        reasons: list[str] = []
        for place in self._places:
            if not _is_in_memory(place):
                reasons.append(f"{place} is not in memory")
                continue
            try:
                return self._make_below(place)
            except OSError as error:
                reasons.append(f"{_ours(place)}: {error.strerror}")
        raise NodeError(
            f"This node has no place in memory for secrets ({', '.join(reasons)}): "
            f"have a tmpfs mounted at /run or /dev/shm."
        )

    def _make_below(self, place: str) -> str:
        """Raises OSError, also where somebody else was there before us."""
        ours = _ours(place)
        home = f"{ours}/{self._node}"
        for folder in (ours, home):
            with suppress(FileExistsError):
                os.mkdir(folder, 0o700)
            found = os.lstat(folder)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise PermissionError(1, "it belongs to somebody else, or others may enter", folder)
        return home


def read(folder: str) -> list[bytes]:
    """The values in an attempt's folder. Raises OSError."""
    return [path.read_bytes() for path in sorted(Path(folder).iterdir())]


def output_folder(folder: str) -> str:
    """Where its output is masked, beside an attempt's folder: the supervisor makes it."""
    return folder + _OUTPUT


def remove(folder: str) -> None:
    """Take an attempt's folder away, and what its output was masked in. No error if it is gone."""
    shutil.rmtree(output_folder(folder), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _ours(place: str) -> str:
    return f"{place}/towline-secrets.{os.geteuid()}"


def _places() -> tuple[str, ...]:
    if os.geteuid() == 0:
        return "/run", "/dev/shm"
    user = os.environ.get("XDG_RUNTIME_DIR", "")
    return (user, "/dev/shm") if user.startswith("/") else ("/dev/shm",)


def _is_in_memory(place: str) -> bool:
    """By the file system that is mounted there."""
    try:
        device = os.stat(place).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        mount, _, kind = line.partition(" - ")
        if mount.split()[2] == wanted:
            return kind.split()[0] in _IN_MEMORY
    return False
