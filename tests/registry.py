"""A real registry (Debian's docker-registry) on a loopback port, and one that stops in the middle.

from tests.registry import registry      # in a conftest.py, as a fixture
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.ports import free_port

USER, PASSWORD = "ada", "correct horse"
# htpasswd -nbB -C 4 ada 'correct horse'
_HTPASSWD = "ada:$2y$04$318E1G5FqTuJM7fYEeTZle7bJVwKne5VRjHutUHmP094tC2kVFZ3.\n"
_START_S = 30.0


class Registry:
    """``host`` is what stands before the images' names."""

    def __init__(self, folder: Path, *, closed: bool = False) -> None:
        self.root = folder / "data"
        self.port = free_port()
        self.host = f"localhost:{self.port}"
        self.creds = f"{USER}:{PASSWORD}" if closed else None
        (folder / "htpasswd").write_text(_HTPASSWD)
        auth = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        config = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(self.root)}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{self.port}"},
            "log": {"level": "error"},
            **({"auth": auth} if closed else {}),
        }
        (folder / "config.json").write_text(json.dumps(config))
        self._log = (folder / "log").open("wb")
        # It ends with a test run that is killed.
        argv = ["setpriv", "--pdeathsig", "KILL", "--", "docker-registry", "serve", folder / "config.json"]
        self._process = subprocess.Popen(argv, stdout=self._log, stderr=self._log)
        self._wait()

    def _wait(self) -> None:
        """It has no way to say that it listens."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        self.close()
        raise AssertionError("docker-registry did not start")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def push(self, source: str, name: str) -> str:
        """Copy an image (``oci:PATH:TAG``) to ``name``, as repo:tag; returns its full name."""
        options = ["--dest-tls-verify=false"]
        if self.creds is not None:
            options += ["--dest-creds", self.creds]
        target = f"docker://{self.host}/{name}"
        done = subprocess.run(
            ["skopeo", "copy", "--quiet", *options, source, target],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return f"{self.host}/{name}"

    def put_manifest(self, repository: str, tag: str, body: bytes, media_type: str) -> None:
        """Put a manifest or index whose parts are there already."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        path = f"/v2/{repository}/manifests/{tag}"
        connection.request("PUT", path, body, {"Content-Type": media_type})
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        connection.close()

    def blob(self, digest: str) -> Path:
        """Where the registry keeps a blob, for tests that damage it."""
        value = digest.removeprefix("sha256:")
        return self.root / "docker/registry/v2/blobs/sha256" / value[:2] / value / "data"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class StallingRegistry:
    """Answers with the manifest that it is given, and of every blob only sends ``sent_bytes``, then
    nothing. ``stalled`` is set when it does so."""

    def __init__(self, manifest: bytes, blobs: dict[str, bytes], sent_bytes: int) -> None:
        outer = self
        self.stalled = threading.Event()
        self._end = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if "/manifests/" in self.path:
                    self._answer(manifest, "application/vnd.oci.image.manifest.v1+json")
                elif "/blobs/" in self.path:
                    outer._stall(self, blobs[self.path.rpartition("/")[2]], sent_bytes)
                else:
                    self._answer(b"{}", "application/json")

            def _answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @classmethod
    def of_fresh_layer(cls, image: str, layer_bytes: int, sent_bytes: int) -> StallingRegistry:
        """Has an image like ``image`` (``oci:PATH:TAG``) of which nobody has any part yet."""
        layout = Path(image.removeprefix("oci:").rpartition(":")[0])

        def read(digest: str) -> Any:
            return json.loads((layout / "blobs" / digest.replace(":", "/")).read_bytes())

        index = json.loads((layout / "index.json").read_bytes())
        manifest = read(index["manifests"][0]["digest"])
        config = read(manifest["config"]["digest"])
        layer = os.urandom(layer_bytes)
        config["rootfs"]["diff_ids"] = [_digest(layer)]
        settings = json.dumps(config).encode()
        manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
        manifest["config"] |= {"digest": _digest(settings), "size": len(settings)}
        manifest["layers"] = [{**manifest["layers"][0], "digest": _digest(layer), "size": layer_bytes}]
        blobs = {_digest(settings): settings, _digest(layer): layer}
        return cls(json.dumps(manifest).encode(), blobs, sent_bytes)

    def _stall(self, handler: BaseHTTPRequestHandler, body: bytes, sent_bytes: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(body[:sent_bytes])
            handler.wfile.flush()
        self.stalled.set()
        self._end.wait()
        handler.close_connection = True

    def close(self) -> None:
        self._end.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that is open to everybody."""
    made = Registry(tmp_path_factory.mktemp("registry"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that wants USER and PASSWORD."""
    made = Registry(tmp_path_factory.mktemp("closed-registry"), closed=True)
    yield made
    made.close()
