"""A user of this machine who is not root, with subordinate ids, made for tests by root and removed after."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import towline

_PREFIX = "towline-test-"
_START = "from towline.cli.main import main; main()"


class OrdinaryUser(NamedTuple):
    """``program`` runs ``tow`` as this user, with ``env``; ``home`` is its folder."""

    name: str
    uid: int
    gid: int
    home: Path
    program: list[str]
    env: dict[str, str]

    @property
    def identity(self) -> dict[str, Any]:
        """As subprocess takes it."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def owns(self, *folders: Path) -> None:
        for folder in folders:
            os.chown(folder, self.uid, self.gid)


class Unavailable(Exception):
    """Why there can be no such user here."""


@contextmanager
def ordinary_user(folder: Path) -> Iterator[OrdinaryUser]:
    """``folder`` is where its home is made; all others can enter it. Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("only root can make a user to test with")
    for program in ("useradd", "userdel", "newuidmap"):
        if shutil.which(program) is None:
            raise Unavailable(f"{program} is missing (apt-get install passwd uidmap)")
    _remove_those_of_the_dead()
    name = f"{_PREFIX}{os.getpid()}"
    home = folder / "home"
    subprocess.run(["useradd", "--create-home", "--home-dir", home, name], check=True, capture_output=True)
    try:
        found = pwd.getpwnam(name)
        user = OrdinaryUser(
            name, found.pw_uid, found.pw_gid, home, [_python(), "-c", _START], _env(name, home)
        )
        _try(user)
        yield user
    finally:
        subprocess.run(["userdel", "--force", name], check=True, capture_output=True)


def _remove_those_of_the_dead() -> None:
    for found in pwd.getpwall():
        if found.pw_name.startswith(_PREFIX):
            pid = found.pw_name.removeprefix(_PREFIX)
            if not Path("/proc", pid).exists():
                subprocess.run(["userdel", "--force", found.pw_name], check=False, capture_output=True)


def _python() -> str:
    """One that others may execute: the environment's own may lie in a closed home."""
    here = f"/usr/bin/python3.{sys.version_info.minor}"
    own = os.path.realpath(sys.executable)
    for program in (own, here):
        if Path(program).exists() and all(_is_open(folder) for folder in Path(program).parents):
            return program
    raise Unavailable(f"no Python 3.{sys.version_info.minor} is here that every user may run ({own}, {here})")


def _is_open(folder: Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)


def _env(name: str, home: Path) -> dict[str, str]:
    packages = [
        str(Path(towline.__file__).parent.parent),
        *(path for path in sys.path if "site-packages" in path),
    ]
    return {
        "HOME": str(home),
        "USER": name,
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        "PYTHONPATH": ":".join(packages),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LANG": "C.UTF-8",
    }


def _try(user: OrdinaryUser) -> None:
    for what, command in (
        ("tow", [*user.program, "version"]),
        ("a user namespace", ["unshare", "--user", "true"]),
    ):
        done = subprocess.run(
            command, env=user.env, cwd="/", capture_output=True, text=True, check=False, **user.identity
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
            raise Unavailable(f"another user cannot have {what} here: {last}")


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder below which others may have theirs."""
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
