"""What a tag stands for, asked by ourselves; and that skopeo is asked wherever that is no way."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest

from towline.images.registries.tags import Tags
from towline.images.settings import ImageSettings
from towline.images.skopeo import Login
from towline.model.imageref import parse_image

DIGEST = "sha256:" + "a" * 64


class Guarded(ThreadingHTTPServer):
    """A registry that wants a token, which anybody gets. ``asked`` has the paths of its requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.digest = DIGEST
        self.token = "first"
        self.challenge = f'Bearer realm="http://127.0.0.1:{self.server_port}/token",service="s"'


class Handler(BaseHTTPRequestHandler):
    server: Guarded

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        query = parse_qs(urlparse(self.path).query)
        assert query == {"scope": ["repository:a/b:pull"], "service": ["s"]}
        self._answer(200, json.dumps({"token": self.server.token, "expires_in": 300}).encode(), {})

    def do_HEAD(self) -> None:
        self.server.asked.append(self.path)
        if self.headers.get("Authorization") == f"Bearer {self.server.token}":
            self._answer(200, b"", {"Docker-Content-Digest": self.server.digest})
        else:
            self._answer(401, b"", {"WWW-Authenticate": self.server.challenge})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def registry() -> Iterator[Guarded]:
    server = Guarded()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


async def asked(registry: Guarded, tags: Tags, login: Login | None = None) -> str | None:
    found = await tags.digest(parse_image(f"127.0.0.1:{registry.server_port}/a/b:1"), login)
    if found is None and tags.opening:
        await asyncio.gather(*tags.opening.values())
        tags.opening.clear()
        found = await tags.digest(parse_image(f"127.0.0.1:{registry.server_port}/a/b:1"), login)
    return found


async def test_a_token_is_got_once_and_again_when_it_is_refused(registry: Guarded) -> None:
    tags = Tags(ImageSettings())
    assert await asked(registry, tags) == DIGEST
    assert await asked(registry, tags) == DIGEST
    manifest = "/v2/a/b/manifests/1"
    assert [path.partition("?")[0] for path in registry.asked] == [manifest, "/token", manifest, manifest]
    registry.token = "second"
    assert await asked(registry, tags) == DIGEST


@pytest.mark.parametrize("challenge", ["", "Basic realm=x", 'Bearer realm="ftp://there"', "Negotiate"])
async def test_what_it_cannot_answer_is_left_to_skopeo(registry: Guarded, challenge: str) -> None:
    registry.challenge = challenge
    assert await asked(registry, Tags(ImageSettings())) is None


async def test_an_odd_digest_is_none(registry: Guarded) -> None:
    registry.digest = "sha256:../../etc"
    assert await asked(registry, Tags(ImageSettings())) is None


async def test_a_login_is_told_to_nobody_without_tls(registry: Guarded) -> None:
    assert await asked(registry, Tags(ImageSettings()), Login("127.0.0.1", "ada", "secret")) is None
    assert registry.asked == []
