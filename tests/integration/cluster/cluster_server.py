"""A real server of a cluster on a port of this machine, and callers with tokens of each role."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import httpx2
from tests.integration.server_process import PATIENCE_S, ServerProcess
from tests.ports import free_port

from towline.identity.tls import client_context

ROLES = ("viewer", "submitter", "admin")


class ClusterServer(ServerProcess):
    """Reached at ``url`` as well as on the socket of its home."""

    def __init__(self, home: Path, **environ: str) -> None:
        super().__init__(home, **environ)
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.authority = ""
        self.tokens: dict[str, str] = {}

    async def start(self, *arguments: str) -> None:
        await super().start("--without-agent", "--listen", f"127.0.0.1:{self.port}", *arguments)
        self.authority = (await self.http.get("/v1/authority")).text

    async def with_tokens(self) -> None:
        """Make a token of each role."""
        for role in ROLES:
            self.tokens[role] = await self.token(role, role)

    async def token(self, name: str, role: str, **fields: Any) -> str:
        answer = await self.http.post("/v1/tokens", json={"name": name, "role": role, **fields})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def join_link(self, **fields: Any) -> str:
        body = {"address": f"127.0.0.1:{self.port}", **fields}
        answer = await self.http.post("/v1/tokens/join", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["link"])

    def context(self) -> ssl.SSLContext:
        return client_context(self.authority.encode())

    def caller(self, token: str | None = None, context: ssl.SSLContext | None = None) -> httpx2.AsyncClient:
        """A client over TLS, with a token or without."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx2.AsyncClient(
            base_url=self.url, verify=context or self.context(), headers=headers, timeout=PATIENCE_S
        )
