"""An Engine as this package uses it: few calls, and two ways in which one can fail."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import IO, Any

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from msgspec import Struct

from towline.runtime.docker.places import socket_path
from towline.runtime.docker.spec import LABEL_ATTEMPT, LABEL_NODE

_CALL_S = 120.0
_BLOCK_BYTES = 1 << 16
_NEVER = "0001-01-01T00:00:00Z"


class EngineGone(Exception):
    """It does not answer: what it was asked may have been done or not. Ask again later."""


class EngineRefused(Exception):
    """It answered that it does not. ``status`` is HTTP's, the text is its own."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Seen(Struct, frozen=True, kw_only=True):
    """A container as the Engine describes it. Times are its own words (RFC 3339), "" for never."""

    status: str
    running: bool
    pid: int
    exit_code: int
    oom_killed: bool
    error: str
    started_at: str
    finished_at: str
    layer: str = ""
    """The folder of what it writes to its root, on the Engine's machine; "" where it is no such folder."""


class Engine:
    """One connection pool to one Engine; every method raises EngineGone and EngineRefused.
    ``api`` is the version of its API (``v1.41``), which is asked for where it is ``auto``."""

    def __init__(self, url: str, api: str = "auto") -> None:
        self.url = url
        path = socket_path(url)
        # Two requests are open for every container that runs, so their number has no limit.
        self._connector: aiohttp.BaseConnector = (
            aiohttp.TCPConnector(limit=0) if path is None else aiohttp.UnixConnector(path, limit=0)
        )
        host = f"http://{url.partition('//')[2]}" if path is None else "unix://localhost"
        self._docker = Docker(host, connector=self._connector, api_version=api)

    async def close(self) -> None:
        await self._docker.close()
        await self._connector.close()

    @asynccontextmanager
    async def _call(
        self, method: str, path: str, timeout_s: float | None = _CALL_S, **how: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._docker._query(path, method, timeout=timeout, **how) as response:
                try:
                    yield response
                finally:
                    response.close() if timeout_s is None else response.release()
        except DockerError as error:
            if error.status == 900:
                raise EngineGone(error.message) from None
            raise EngineRefused(error.status, error.message) from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineGone(f"{type(error).__name__}: {error}") from None

    async def _json(self, method: str, path: str, body: Any = None, **how: Any) -> Any:
        data = None if body is None else json.dumps(body)
        async with self._call(method, path, data=data, **how) as response:
            text = await response.read()
        return json.loads(text) if text.strip() else None

    # --- containers ---------------------------------------------------------------------------------
    async def create(self, name: str, config: Mapping[str, Any]) -> None:
        """Made, or there already (409)."""
        try:
            await self._json("POST", "containers/create", dict(config), params={"name": name})
        except EngineRefused as error:
            if error.status != 409 and "already in use" not in str(error):
                raise

    async def start(self, name: str) -> None:
        """Started, or running already (304)."""
        await self._json("POST", f"containers/{name}/start")

    async def signal(self, name: str, number: int) -> None:
        """No error where nothing of it runs (any more)."""
        try:
            await self._json("POST", f"containers/{name}/kill", params={"signal": str(number)})
        except EngineRefused as error:
            if error.status not in (404, 409, 500):
                raise

    async def wait(self, name: str) -> None:
        """Until it does not run, as long as that takes."""
        async with self._call("POST", f"containers/{name}/wait", timeout_s=None) as response:
            await response.read()

    async def inspect(self, name: str) -> Seen | None:
        """None: there is no such container."""
        try:
            found = await self._json("GET", f"containers/{name}/json")
        except EngineRefused as error:
            # Podman answers with 500 while it is being removed.
            if error.status == 404 or "no such container" in str(error):
                return None
            raise
        state = found["State"]
        return Seen(
            status=state["Status"],
            running=bool(state.get("Running")),
            pid=state.get("Pid") or 0,
            exit_code=state.get("ExitCode") or 0,
            oom_killed=bool(state.get("OOMKilled")),
            error=state.get("Error") or "",
            started_at=_time(state.get("StartedAt")),
            finished_at=_time(state.get("FinishedAt")),
            layer=((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir") or "",
        )

    async def written_bytes(self, name: str) -> int:
        """What lies in its own layer. It may take as long as looking at all of its files."""
        found = await self._json("GET", f"containers/{name}/json", params={"size": "true"})
        return int(found.get("SizeRw") or 0)

    async def remove(self, name: str) -> None:
        """Kill and remove it with its unnamed volumes; it may be gone already."""
        try:
            await self._json("DELETE", f"containers/{name}", params={"force": "true", "v": "true"})
        except EngineRefused as error:
            if error.status != 404 and "no such container" not in str(error):
                raise

    async def ours(self, node: str) -> list[tuple[str, str]]:
        """(attempt, id) of every container with this node's label, also those that have ended."""
        filters = json.dumps({"label": [f"{LABEL_NODE}={node}"]})
        found = await self._json("GET", "containers/json", params={"all": "true", "filters": filters})
        named = ((each.get("Labels") or {}, each["Id"]) for each in found)
        # Asked again of the label itself: nothing else is ever to be stopped.
        return [(tags.get(LABEL_ATTEMPT, ""), name) for tags, name in named if tags.get(LABEL_NODE) == node]

    async def logs(self, name: str, follow: bool) -> AsyncIterator[bytes]:
        """Its output from the beginning, framed; with ``follow`` until it has ended."""
        params = {"stdout": "true", "stderr": "true", "follow": "true" if follow else "false"}
        async with self._call("GET", f"containers/{name}/logs", timeout_s=None, params=params) as response:
            async for block in response.content.iter_chunked(_BLOCK_BYTES):
                yield block

    async def read_file(self, name: str, path: str) -> bytes:
        """A tar archive of a file in a container that need not run."""
        async with self._call("GET", f"containers/{name}/archive", params={"path": path}) as response:
            return await response.read()

    # --- further commands ---------------------------------------------------------------------------
    async def exec_create(self, name: str, config: Mapping[str, Any]) -> str:
        """The id of a command in a container; it runs once somebody has attached to it."""
        found = await self._json("POST", f"containers/{name}/exec", dict(config))
        return str(found["Id"])

    async def exec_attach(self, exec_id: str, tty: bool) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Start it. What comes is its output (framed, but not with ``tty``), what goes its input."""
        path = socket_path(self.url)
        try:
            if path is not None:
                reader, writer = await asyncio.open_unix_connection(path)
            else:
                host, _, port = self.url.partition("//")[2].rpartition(":")
                reader, writer = await asyncio.open_connection(host, int(port))
        except (OSError, ValueError) as error:
            raise EngineGone(f"{type(error).__name__}: {error}") from None
        try:
            await _upgrade(reader, writer, f"/{self._docker.api_version}/exec/{exec_id}/start", tty)
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def exec_state(self, exec_id: str) -> tuple[bool, int, int]:
        """(whether it runs, its pid on the engine's machine or 0, its exit code)."""
        found = await self._json("GET", f"exec/{exec_id}/json")
        return bool(found.get("Running")), found.get("Pid") or 0, found.get("ExitCode") or 0

    async def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        await self._json("POST", f"exec/{exec_id}/resize", params={"h": str(rows), "w": str(columns)})

    # --- images -------------------------------------------------------------------------------------
    async def image(self, name: str) -> dict[str, Any] | None:
        """``GET /images/NAME/json``; None: it is not there."""
        try:
            return await self._json("GET", f"images/{name}/json")
        except EngineRefused as error:
            if error.status == 404:
                return None
            raise

    async def pull(
        self, name: str, which: str, login: tuple[str, str, str] | None, plain_podman: bool = False
    ) -> AsyncIterator[dict[str, Any]]:
        """Its steps. ``which`` is a tag or a digest, ``login`` (registry, user, password). Docker asks this
        machine's own registries without TLS; to Podman (``plain_podman``) that has to be said."""
        headers = {}
        if login is not None:
            registry, user, password = login
            auth = {"username": user, "password": password, "serveraddress": registry}
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()
        how: dict[str, Any] = {"params": {"fromImage": name, "tag": which}}
        path = "images/create"
        if plain_podman:
            mark = "@" if ":" in which else ":"
            how = {"params": {"reference": f"{name}{mark}{which}", "tlsVerify": "false"}}
            how["versioned_api"] = False
            path = "v4.0.0/libpod/images/pull"
        async with self._call("POST", path, timeout_s=None, headers=headers, **how) as response:
            async for step in _steps(response):
                yield step

    async def load(self, archive: IO[bytes]) -> None:
        """What ``docker save`` wrote."""
        headers = {"Content-Type": "application/x-tar"}
        async with self._call(
            "POST", "images/load", timeout_s=None, data=archive, headers=headers
        ) as response:
            async for _ in _steps(response):
                continue


async def _upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, tty: bool) -> None:
    """Ask for the connection itself in place of an answer. Raises EngineGone, EngineRefused."""
    body = json.dumps({"Detach": False, "Tty": tty}).encode()
    writer.write(
        b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
    )
    try:
        async with asyncio.timeout(_CALL_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode(errors="replace")
        status = int(head.split()[1])
        if status not in (101, 200):
            said = (await reader.read(_BLOCK_BYTES)).decode(errors="replace")
            raise EngineRefused(status, _message(said))
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError, IndexError) as error:
        raise EngineGone(f"{type(error).__name__}: {error}") from None


def _message(said: str) -> str:
    """Of an error's JSON document, which may come in chunks of HTTP's."""
    begin, end = said.find("{"), said.rfind("}")
    try:
        return str(json.loads(said[begin : end + 1])["message"])
    except (ValueError, KeyError):
        return said[:500]


async def _steps(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Lines of JSON. Raises EngineRefused where one of them is an error: the status came before it."""
    async for line in response.content:
        if not line.strip():
            continue
        step = json.loads(line)
        if step.get("error"):
            raise EngineRefused(500, str(step["error"]))
        yield step


def _time(said: str | None) -> str:
    return "" if not said or said.startswith(_NEVER[:4]) else said
