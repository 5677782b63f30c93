"""Homes that tests have one after the other: to start server and agent is most of what a short test costs.

What a test leaves behind is ended and removed after it. A home whose test has failed, or has killed, stopped
or replaced something, is closed, and the next test gets a new one.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
from tests import guard
from tests.e2e.home import LONG_S, Home

CLIENTS_OWN = {
    "TOWLINE_HOME", "TOWLINE_SERVER", "TOWLINE_TOKEN", "TOWLINE_CA", "TOWLINE_CONTEXT", "LANG", "TERM",
}  # fmt: skip
"""What commands read and neither server nor agent does."""


def settings(given: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """What a test has set for server and agent, beyond what was given."""
    changed = (name for name in sorted(env) if env[name] != given.get(name))
    return {name: env[name] for name in changed if name not in CLIENTS_OWN}


class Lender:
    """Lends one home, to one test at a time."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._before: dict[str, list[int]] = {}

    def lend(self, work: Path, *, alone: bool = False) -> Home:
        """``work`` is the folder of the test. ``alone``: no other test has been there."""
        if alone or self._has_ended():
            self.close()
        if self._path is None:
            self._path = new_folder()
        home = Home(self._path, work)
        self._before = home.processes()
        if self._before:
            with asking(self._path) as http:
                home.newest = newest_job(http)
        return home

    def _has_ended(self) -> bool:
        """Whether its server has ended by itself: it alone knows what its jobs were."""
        if self._path is None:
            return False
        return (self._path / "state.db").exists() and not Home(self._path, self._path).processes()

    def take_back(self, home: Home, *, failed: bool) -> None:
        home.end_started()
        if failed or not self._is_as_before(home) or not tidied(home.path):
            self.close()

    def _is_as_before(self, home: Home) -> bool:
        now = home.processes()
        if not self._before and not now:
            return True
        return bool(now.get("server")) and all(now.get(role) == pids for role, pids in self._before.items())

    def close(self) -> None:
        path, self._path = self._path, None
        if path is not None:
            close(Home(path, path))


def new_folder() -> Path:
    """For a home. Not below a test's folder: the name of a Unix socket has to be short."""
    folder = Path(tempfile.mkdtemp(prefix="tow-"))
    guard.watch(folder)
    return folder


def close(home: Home) -> None:
    """End everything of a home, and remove it."""
    tidied(home.path)  # jobs first: containers would outlive it
    try:
        home.close()
    finally:
        shutil.rmtree(home.path)
        guard.forget(home.path)


def asking(path: Path) -> httpx2.Client:
    """A client of the server of a home, or of a cluster's on its own machine."""
    transport = httpx2.HTTPTransport(uds=str(path / "tow.sock"))
    return httpx2.Client(transport=transport, base_url="http://towline", timeout=LONG_S, verify=False)


def newest_job(http: httpx2.Client) -> str | None:
    jobs = _listed(http, "/v1/jobs", limit=1)
    return str(jobs[0]["id"]) if jobs else None


def tidied(path: Path) -> bool:
    """End and remove what was made in a home. False where that cannot be done."""
    if not (path / "tow.sock").exists():
        return True
    with socket.socket(socket.AF_UNIX) as probe:  # the client leaves open what it cannot connect
        if probe.connect_ex(str(path / "tow.sock")) != 0:
            return False
    with suppress(httpx2.HTTPError, KeyError), asking(path) as http:
        jobs = _listed(http, "/v1/jobs", state="running,quarantined", limit=1000)
        for job in jobs:
            http.post(f"/v1/jobs/{job['id']}/cancel", json={"kill": True})
        for job in jobs:
            http.get(f"/v1/jobs/{job['id']}/wait", params={"timeout_s": LONG_S})
        for what in ("secrets", "registries", "queues"):
            names = [each.get("name") or each["registry"] for each in _listed(http, f"/v1/{what}")]
            for name in reversed(names):  # a queue's parent is before it
                http.delete(f"/v1/{what}/{name}")
        left = _listed(http, "/v1/jobs", state="running"), _listed(http, "/v1/secrets")
        return not any(left) and len(_listed(http, "/v1/queues")) == 1
    return False


def _listed(http: httpx2.Client, path: str, **query: Any) -> list[dict[str, Any]]:
    answer = http.get(path, params=query).raise_for_status().json()
    found: list[dict[str, Any]] = answer[path.rpartition("/")[2]]
    return found
