"""Asks a registry what a tag stands for, where that is likely an image that is here already: one request by
ourselves takes a tenth of the time of a skopeo. All that is not plain (other credentials than a login of
ours, mirrors, redirections, faults of any kind) is left to skopeo, which has the last word on it.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md, and for tokens
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from towline.images.layout import is_digest
from towline.images.settings import ImageSettings
from towline.images.skopeo import Login
from towline.model.imageref import ImageRef

if TYPE_CHECKING:
    import httpx2

_TIMEOUT_S = 3.0
_ACCEPT = ", ".join((
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
))  # fmt: skip
_HOSTS = {"docker.io": "registry-1.docker.io"}
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_TOKEN_S = 60.0
"""How long a token holds where the registry does not say."""
_LEAST_LEFT_S = 5.0
_MOST_TOKENS = 256
_CONFIGURED = (Path("/etc/containers"), Path("~/.config/containers"))


class Tags:
    """Of one store. ``digest`` never raises; it says nothing where skopeo has to be asked."""

    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings
        self._clients: dict[bool, httpx2.AsyncClient] = {}
        self.opening: dict[bool, asyncio.Future[None]] = {}
        """Clients on their way, by whether they are for insecure registries."""
        self._tokens: dict[tuple[str, str, Login | None], tuple[str, float]] = {}
        self._log = structlog.get_logger("images")

    async def digest(self, ref: ImageRef, login: Login | None) -> str | None:
        """What the tag stands for now (``sha256:…``); None where this is no way to learn it."""
        insecure = self._settings.is_insecure(ref.registry)
        if ref.tag is None or (insecure and login is not None) or _has_mirrors():
            return None
        client = self._clients.get(insecure)
        if client is None:  # beside what skopeo does this time: it takes as long
            if insecure not in self.opening:
                self.opening[insecure] = asyncio.ensure_future(asyncio.to_thread(self._open, insecure))
            return None
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._ask(client, ref, login, "http" if insecure else "https")
        except Exception as error:
            self._log.info("asking skopeo for a tag", image=str(ref), reason=repr(error))
            return None

    def _open(self, insecure: bool) -> None:
        """Takes some 100 ms, for the import and the certificates."""
        import httpx2

        limits = httpx2.Limits(max_keepalive_connections=0)
        self._clients[insecure] = httpx2.AsyncClient(limits=limits, verify=not insecure)

    async def _ask(
        self, client: httpx2.AsyncClient, ref: ImageRef, login: Login | None, scheme: str
    ) -> str | None:
        host = _HOSTS.get(ref.registry, ref.registry)
        url = f"{scheme}://{host}/v2/{ref.repository}/manifests/{ref.tag}"
        key = (ref.registry, ref.repository, login)
        headers = {"Accept": _ACCEPT}
        token, until_s = self._tokens.get(key, ("", 0.0))
        if time.monotonic() < until_s:
            headers["Authorization"] = token
        answer = await client.head(url, headers=headers)
        if answer.status_code == 401:
            self._tokens.pop(key, None)
            wanted = answer.headers.get("www-authenticate", "")
            allowed = await self._allowed(client, wanted, key, scheme)
            if allowed is None:
                return None
            answer = await client.head(url, headers={**headers, "Authorization": allowed})
        found = answer.headers.get("docker-content-digest", "")
        return found if answer.status_code == 200 and is_digest(found) else None

    async def _allowed(
        self, client: httpx2.AsyncClient, wanted: str, key: tuple[str, str, Login | None], scheme: str
    ) -> str | None:
        """The Authorization that a registry asks for by ``wanted``, where we can have it: a login goes to
        nobody without TLS, since none is used where the registry has none."""
        _, repository, login = key
        kind, _, rest = wanted.partition(" ")
        basic = None if login is None else _basic(login)
        if kind.lower() == "basic":
            return basic
        asked = dict(_PARAMETER.findall(rest))
        if kind.lower() != "bearer" or not asked.get("realm", "").startswith(("https://", f"{scheme}://")):
            return None
        parameters = {"scope": asked.get("scope") or f"repository:{repository}:pull"}
        if "service" in asked:
            parameters["service"] = asked["service"]
        headers = {} if basic is None else {"Authorization": basic}
        answer = await client.get(asked["realm"], params=parameters, headers=headers)
        if answer.status_code != 200:
            return None
        return self._keep(key, answer.json())

    def _keep(self, key: tuple[str, str, Login | None], given: dict[str, Any]) -> str | None:
        token = given.get("token") or given.get("access_token")
        if not isinstance(token, str):
            return None
        lasts_s = float(given.get("expires_in") or _TOKEN_S) - _LEAST_LEFT_S
        if len(self._tokens) >= _MOST_TOKENS:
            self._tokens.clear()
        self._tokens[key] = f"Bearer {token}", time.monotonic() + lasts_s
        return f"Bearer {token}"


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(f"{login.user}:{login.password}".encode()).decode()


def _has_mirrors() -> bool:
    """Whether this machine's configuration may send skopeo elsewhere than where the name says."""
    for folder in _CONFIGURED:
        place = folder.expanduser()
        files = [place / "registries.conf", *(place / "registries.conf.d").glob("*.conf")]
        for file in files:
            try:
                lines = file.read_text(errors="replace").splitlines()
            except OSError:
                continue
            if any(line.strip().startswith(("[[registry", "[registries")) for line in lines):
                return True
    return False
