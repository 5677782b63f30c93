"""Images for an Engine: pulled by it, by digest, or loaded into it from a layout or an archive."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from towline.agent.docker.client import Engine, EngineGone, EngineRefused
from towline.images import ImageConfig, ImageFailed
from towline.images.failures import corrupt, not_found, unpullable, unusable
from towline.images.fetch import offline
from towline.images.flights import Flights
from towline.images.progress import ASKING, Progress, shown
from towline.images.settings import ImageSettings
from towline.images.skopeo import explain
from towline.model.imageref import ImageRef, parse_image
from towline.model.places import resolve_path
from towline.runtime.docker.faults import pull_failure
from towline.runtime.docker.pulling import Layers

_TAG_PREFIX = "towline/loaded"


class EngineImage(NamedTuple):
    """``id`` is the Engine's, ``digest`` that of the manifest in its registry, or else the id."""

    id: str
    digest: str
    config: ImageConfig


class EngineImages:
    """One pull or load at a time for each image, however many tasks wait for it. ``podman``: what kind of
    Engine it is. ``pulls`` are those under way, by the image's name."""

    def __init__(self, engine: Engine, settings: ImageSettings | None = None, podman: bool = False) -> None:
        self._engine = engine
        self._settings = settings or ImageSettings()
        self._podman = podman
        self._flights = Flights()
        self._log = structlog.get_logger("images")
        self.pulls: dict[str, Progress] = {}

    async def ensure(
        self,
        reference: str,
        base_dir: str | None,
        pinned: str | None = None,
        login: tuple[str, str, str] | None = None,
    ) -> EngineImage:
        """The image in the Engine. ``pinned``: the digest that the task's tag stands for. Raises
        ImageFailed, with the reasons that ``ImageStore`` has."""
        try:
            ref = parse_image(reference)
        except ValueError as error:
            raise unusable(reference, error) from None
        key = (str(ref), pinned, login) if ref.kind == "registry" else (reference, base_dir)
        return await self._flights.join(key, partial(self._get, ref, reference, base_dir, pinned, login))

    def progress_of(self, reference: str) -> Progress | None:
        """How far the pull of this name is, if there is one."""
        try:
            return self.pulls.get(str(parse_image(reference)))
        except ValueError:
            return None

    async def _get(
        self,
        ref: ImageRef,
        reference: str,
        base_dir: str | None,
        pinned: str | None,
        login: tuple[str, str, str] | None,
    ) -> EngineImage:
        try:
            if ref.kind == "registry":
                return await self._from_registry(ref, pinned, login)
            return await self._from_disk(ref, reference, base_dir)
        except EngineGone as error:
            raise unpullable(f"The engine does not answer ({error}): start it.") from None

    async def _from_registry(
        self, ref: ImageRef, pinned: str | None, login: tuple[str, str, str] | None
    ) -> EngineImage:
        name = f"{ref.registry}/{ref.repository}"
        digest = pinned or ref.digest
        which = f"{name}@{digest}" if digest else f"{name}:{ref.tag}"
        found = await self._engine.image(which) if digest else None
        if found is None:
            try:
                await self._pull(ref, which, digest or str(ref.tag), login)
            except ImageFailed as error:
                found = await self._engine.image(which) if offline(error) else None
                if found is None:
                    raise
                self._log.warning("the registry does not answer: taking the engine's copy", image=which)
        found = found or await self._engine.image(which)
        if found is None:
            raise not_found(f"The engine has pulled {which}, and does not have it: pull it by hand.")
        return _image(found, digest or _digest_in(found, name))

    async def _pull(
        self, ref: ImageRef, which: str, tag_or_digest: str, login: tuple[str, str, str] | None
    ) -> None:
        """Raises ImageFailed, EngineGone."""
        layers, progress = Layers(), Progress(str(ref), step=ASKING)
        progress.arrived = lambda: layers.arrived_bytes
        with shown(self.pulls, progress):
            await self._pull_layers(ref, which, tag_or_digest, login, layers, progress)

    async def _pull_layers(
        self,
        ref: ImageRef,
        which: str,
        tag_or_digest: str,
        login: tuple[str, str, str] | None,
        layers: Layers,
        progress: Progress,
    ) -> None:
        plain = self._podman and self._settings.is_insecure(ref.registry)
        steps = self._engine.pull(f"{ref.registry}/{ref.repository}", tag_or_digest, login, plain)
        loop, still_s = asyncio.get_running_loop(), self._settings.pull_timeout_s
        silence, whole = asyncio.timeout(still_s), asyncio.timeout(self._settings.pull_total_s)
        try:
            async with whole, silence:
                async for step in steps:
                    layers.hear(step)
                    progress.enter(layers.step)
                    progress.total_bytes = layers.total_bytes
                    silence.reschedule(loop.time() + still_s)
        except TimeoutError:
            raise self._too_slow(which, layers.arrived_bytes, silence.expired()) from None
        except EngineRefused as error:
            text, reason = pull_failure(which, str(error))
            raise ImageFailed(text, reason) from None

    def _too_slow(self, which: str, arrived_bytes: int, silent: bool) -> ImageFailed:
        if silent:
            return unpullable(
                f"The registry has sent nothing of {which} for {self._settings.pull_timeout_s:.0f} s (after "
                f"{arrived_bytes:,} bytes): check it and the network, or raise images_pull_timeout."
            )
        return unpullable(
            f"Pulling {which} has taken over {self._settings.pull_total_s:.0f} s ({arrived_bytes:,} bytes "
            f"came): check the network, or raise images_pull_total."
        )

    async def _from_disk(self, ref: ImageRef, reference: str, base_dir: str | None) -> EngineImage:
        """By skopeo into what ``docker load`` reads, under a name that the content decides."""
        try:
            path = Path(resolve_path(ref.path, base_dir))
        except ValueError as error:
            raise unusable(reference, error) from None
        source = f"{ref.kind}:{path}" + (f":{ref.tag}" if ref.tag else "")
        config = await _skopeo(reference, "inspect", "--raw", "--config", source)
        name = f"{_TAG_PREFIX}:{_fingerprint(config)}"
        found = await self._engine.image(name)
        if found is None:
            async with _archive() as file:
                await _skopeo(reference, "copy", "--quiet", source, f"docker-archive:{file}:{name}")
                try:
                    with file.open("rb") as archive:
                        await self._engine.load(archive)
                except EngineRefused as error:
                    raise corrupt(f"The engine does not take the image {reference}: {error}.") from None
            found = await self._engine.image(name)
        if found is None:
            raise corrupt(f"The engine has loaded {reference}, and does not have it.")
        return _image(found, None)


def _image(found: dict[str, Any], digest: str | None) -> EngineImage:
    config = found.get("Config") or {}
    number = str(found["Id"])
    number = number if number.startswith("sha256:") else f"sha256:{number}"
    return EngineImage(
        number,
        digest or number,
        ImageConfig(
            entrypoint=_words(config.get("Entrypoint")),
            cmd=_words(config.get("Cmd")),
            env=_words(config.get("Env")),
            workdir=config.get("WorkingDir") or None,
            user=config.get("User") or None,
        ),
    )


def _words(given: list[str] | None) -> tuple[str, ...] | None:
    return tuple(given) if given else None


def _digest_in(found: dict[str, Any], name: str) -> str | None:
    short = name.removeprefix("docker.io/").removeprefix("library/")
    for entry in found.get("RepoDigests") or []:
        where, _, digest = entry.partition("@")
        if where in (name, short, f"library/{short}"):
            return digest
    return None


def _fingerprint(config: bytes) -> str:
    return hashlib.sha256(config).hexdigest()[:32]


@asynccontextmanager
async def _archive() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="towline-load-") as folder:
        yield Path(folder, "image.tar")


async def _skopeo(reference: str, *arguments: str) -> bytes:
    """Raises ImageFailed, NodeError."""
    try:
        process = await asyncio.create_subprocess_exec(
            "skopeo", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError:
        raise unpullable("skopeo, which reads images from disk, is missing: apt-get install skopeo") from None
    try:
        out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode == 0:
        return out
    raise explain(reference, err.decode(errors="replace"))
