"""Runs skopeo: what it is given, how long it may take, and what its complaints mean.

A password reaches it through a memory file (memfd) that only it and we can open: it is never an
argument, in the environment or on a disk, and is gone with the process.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from towline.errors import NodeError
from towline.images.failures import ImageFailed, corrupt, disk_full, not_found, unauthorised, unpullable
from towline.images.layout import native_architecture
from towline.images.settings import ImageSettings

_LOOK_EVERY_S = 0.25
_MAX_OUTPUT_BYTES = 8 * 1024**2
_SAID_BYTES = 64 * 1024
_KEPT_VARIABLES = (
    "PATH", "HOME", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
_POLICIES = (Path("/etc/containers/policy.json"), Path("~/.config/containers/policy.json"))


class Login(NamedTuple):
    """What a registry is told. Nothing of it is ever shown."""

    registry: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"<Login of {self.user!r} at {self.registry!r}>"

    def auth_file(self) -> bytes:
        """As ``docker login`` writes it."""
        word = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return msgspec.json.encode({"auths": {self.registry: {"auth": word}}})


class Skopeo(NamedTuple):
    """One run after the other. ``work`` is a folder for what it writes, ``lock`` a descriptor that it
    inherits, ``arrived`` says how many bytes have come, ``most_bytes`` how many may."""

    settings: ImageSettings
    work: Path
    lock: int
    arrived: Callable[[], int]
    most_bytes: int

    async def run(self, name: str, arguments: Sequence[str], login: Login | None = None) -> bytes:
        """What it says on its standard output. ``name`` is the image's. Raises ImageFailed, NodeError."""
        output, errors = self.work / "output", self.work / "errors"
        auth = None if login is None else _memory_file(login.auth_file())
        try:
            with output.open("wb") as out, errors.open("wb") as err:
                argv = _argv(self.work, arguments, auth)
                process = await self._start(argv, out.fileno(), err.fileno(), auth)
                fault = await self._watch(process, output, name)
        finally:
            if auth is not None:
                os.close(auth)
        if fault is not None:
            raise fault
        if process.returncode != 0:
            with errors.open("rb") as file:
                raise explain(name, file.read(_SAID_BYTES).decode(errors="replace"))
        with output.open("rb") as file:
            return file.read(_MAX_OUTPUT_BYTES)

    async def _start(
        self, argv: list[str], out: int, err: int, auth: int | None
    ) -> asyncio.subprocess.Process:
        # In our session: one of its own would be a scheduling group of its own (autogroup), which takes
        # twice as long on a busy machine.
        inherited = (self.lock,) if auth is None else (self.lock, auth)
        try:
            return await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=inherited,
                cwd=self.work,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            )
        except FileNotFoundError:
            raise NodeError(
                "skopeo, which gets images from registries and archives, is missing on this node: "
                "apt-get install skopeo"
            ) from None

    async def _watch(
        self, process: asyncio.subprocess.Process, output: Path, name: str
    ) -> ImageFailed | None:
        """Wait for its end; where it is cut off, why. Killed by its id, whatever ends the wait."""
        begun_s = moved_s = time.monotonic()
        before: tuple[int, int] | None = None
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await process.wait()
                        return None
                now_s = time.monotonic()
                arrived = self.arrived()
                if (state := (arrived, os.stat(output).st_size)) != before:  # noqa: PTH116 - texts, and there are many
                    before, moved_s = state, now_s
                if fault := self._fault(name, arrived, now_s - moved_s, now_s - begun_s):
                    return fault
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())

    def _fault(self, name: str, arrived: int, still_s: float, all_s: float) -> ImageFailed | None:
        if arrived > self.most_bytes:
            return disk_full(f"the image {name}, which is larger than images.max_bytes ({self.most_bytes:,})")
        if still_s > self.settings.pull_timeout_s:
            return unpullable(
                f"The registry has sent nothing of {name} for {self.settings.pull_timeout_s:.0f} s (after "
                f"{arrived:,} bytes): check it and the network, or raise images_pull_timeout."
            )
        if all_s > self.settings.pull_total_s:
            return unpullable(
                f"Pulling {name} has taken over {self.settings.pull_total_s:.0f} s ({arrived:,} bytes came): "
                "check the network, or raise images_pull_total."
            )
        return None


def _argv(work: Path, arguments: Sequence[str], auth: int | None) -> list[str]:
    setpriv = shutil.which("setpriv")  # ends it with the agent; its lock tells of it where that is missing
    argv = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    argv += ["skopeo", "--tmpdir", os.fspath(work)]
    if not any(path.expanduser().exists() for path in _POLICIES):
        argv.append("--insecure-policy")
    command, *rest = arguments
    given = [] if auth is None else ["--authfile", f"/proc/self/fd/{auth}"]
    return [*argv, command, *given, *rest]


def _memory_file(content: bytes) -> int:
    handle = os.memfd_create("auth", os.MFD_CLOEXEC)
    os.fchmod(handle, 0o600)
    os.write(handle, content)
    return handle


# --- what it complains about ------------------------------------------------------------------------
_NAMES = re.compile(r'"docker://[^"]*"|\bin [^ ]+/[^ ]+:')
"""Where the image's own name stands, which must not be taken for a complaint."""
_ENDING = re.compile(r'^time="[^"]*" level=fatal msg="(.*)"$', re.MULTILINE)

_AUTH = (
    "unauthorized", "authentication required", "invalid username/password", "status code 401",
    "401 (unauthorized)", "403 (forbidden)", "access to the resource is denied", "denied:",
    "status code 403", "unable to retrieve auth token",
)  # fmt: skip
_RATE = ("toomanyrequests", "too many requests", "429 (")
_MISSING = (
    "manifest unknown", "name unknown", "repository name not known", "404 (not found)",
    "name invalid", "no such file or directory", "status code 404", "not found in archive",
    "reference not found", "no descriptor found",
)  # fmt: skip
_DAMAGED = (
    "digest did not match", "does not match", "invalid character", "unexpected end of json",
    "exceeded maximum allowed size", "unsupported manifest", "unsupported schema",
    "json:", "manifest invalid", "size mismatch", "unexpected size", "blob unknown", "gzip:",
    "archive/tar", "invalid checksum digest", "unsupported docker v2s2", "cannot unmarshal",
    "unsupported mimetype", "exceeded max depth", "unknown blob", "invalid tar header",
)  # fmt: skip
_TLS = ("x509:", "tls:", "server gave http response to https client", "certificate")


def explain(name: str, said: str) -> ImageFailed | NodeError:
    """What skopeo's last words mean."""
    fatal = _ENDING.findall(said)
    words = (fatal[-1] if fatal else said.strip() or "nothing")[-600:].replace('\\"', '"')
    low = _NAMES.sub("", words).lower()

    def has(signs: Sequence[str]) -> bool:
        return any(sign in low for sign in signs)

    if "no space left on device" in low or "disk quota exceeded" in low:
        return disk_full(f"the image {name}")
    if "permission denied" in low:
        return NodeError(f"The image {name} cannot be read by the agent's user: {words}. Let it read that.")
    if "no image found in manifest list" in low or "no image found in image index" in low:
        return not_found(
            f"The image {name} is not made for this node's architecture {native_architecture()}."
        )
    if "reading blob" in low and ("404" in low or "blob unknown" in low):
        return corrupt(f"The image {name} lacks a part in its registry: push it again. skopeo says: {words}")
    if has(_RATE):
        return unpullable(
            f"The registry gives no more images for now (its limit of pulls is reached) for {name}: "
            "log in with 'tow registry login', or try later."
        )
    if has(_TLS):
        return NodeError(
            f"The registry of {name} cannot be trusted: {words}. Give it a certificate that this node knows, "
            "or name it in insecure_registries of agent.toml."
        )
    if has(_MISSING):
        return not_found(f"There is no image {name}: check its name and tag. skopeo says: {words}")
    if has(_AUTH):
        return unauthorised(
            f"The registry refuses {name}: log in with 'tow registry login' as a user who may read it, or "
            f"correct its name. skopeo says: {words}"
        )
    if has(_DAMAGED):
        return corrupt(f"The image {name} is damaged in its registry or archive. skopeo says: {words}")
    return unpullable(f"The image {name} could not be pulled. skopeo says: {words}")
