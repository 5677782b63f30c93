"""The images of a node: each pulled and unpacked once, shared by all attempts as the lower layer of
their roots.

An image from a registry is known by the digest that its name stood for (of an index, the index's); one
of a local layout or archive by its manifest's digest. A task that is pinned gets that very image.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
from msgspec import Struct

from towline.beside import Beside
from towline.errors import NO_ROOM, NodeError, NotFound, RequestError
from towline.images import fetch
from towline.images.collect import Collected, Collector
from towline.images.failures import ImageFailed, disk_full, not_found, unusable
from towline.images.flights import Flights
from towline.images.layout import ImageConfig, Resolved, is_digest, resolve
from towline.images.partial import Work, sweep, working
from towline.images.progress import ASKING, PULLING, UNPACKING, Progress, shown
from towline.images.records import Part, Record, Records, Signature, boot_id
from towline.images.registries.tags import Tags
from towline.images.settings import ImageSettings
from towline.images.skopeo import Login
from towline.images.unpack import Limits, flush, unpack
from towline.model.imageref import ImageRef, parse_image
from towline.model.places import resolve_path
from towline.model.states import Reason

_FOLDERS = ("records", "layers", "unpacked", "partial", "blobs/sha256")
_LEAST_PREFIX = 6
_MOST_RESOLVED = 4096
LEARN_AFTER_S = 0.5


class Image(NamedTuple):
    """An image that is ready to be used. ``digest`` is what another node would have to take to run the
    same (``sha256:…``)."""

    digest: str
    rootfs: Path
    config: ImageConfig


class Stored(Struct, frozen=True, kw_only=True):
    """One image of a store, for people. Times are unix ms; ``attempts`` use it now. ``progress``: it is
    being pulled, and nothing else is known of it."""

    digest: str
    names: tuple[str, ...]
    unpacked_bytes: int = 0
    compressed_bytes: int = 0
    pulled_at: int = 0
    used_at: int = 0
    attempts: int = 0
    progress: str | None = None


class ImageStore:
    """Keeps images under ``root``. One process may have several; several processes may share a root.

    ``in_use`` gives, by digest, how many attempts have or will soon have an image: it is never collected.
    """

    def __init__(self, root: Path, settings: ImageSettings | None = None) -> None:
        self.root = root
        self.in_use: Callable[[], Mapping[str, int]] = dict
        self._settings = settings or ImageSettings()
        self._records = Records(root / "records")
        self._collector = Collector(root, self._records)
        self._tags = Tags(self._settings)
        self._flights = Flights()
        self._resolved: dict[tuple[str, str], str] = {}
        self._waited_for: dict[str, str] = {}
        """By the names of those who wait for a pull, the digest that is pulled."""
        self._opening: asyncio.Future[None] | None = None
        self._beside = Beside()
        self._log = structlog.get_logger("images")
        self.pulls: dict[str, Progress] = {}
        """What is under way, by the image's name."""

    # --- for attempts -----------------------------------------------------------------------------
    async def ensure(
        self,
        reference: str,
        base_dir: str | None,
        *,
        pinned: str | None = None,
        login: Login | None = None,
        scope: str | None = None,
    ) -> Image:
        """The image that a name means now, or the one that ``pinned`` means, ready to be used. Within one
        ``scope`` (a job) a tag is asked for once.

        Paths of layouts and archives are relative to ``base_dir``. Raises ImageFailed (its reason says
        why), or NodeError where the node cannot get images at all.
        """
        ref = _parse(reference, base_dir)
        try:
            await self._open()
            if pinned is not None and is_digest(pinned):
                found = self._ready(pinned)
                return found or await self._get(ref, pinned, login, scope)
            return await self._get(ref, None, login, scope)
        except OSError as error:
            raise self._cannot_write(str(ref), error) from error

    async def _get(self, ref: ImageRef, pinned: str | None, login: Login | None, scope: str | None) -> Image:
        match ref.kind:
            case "registry":
                return await self._from_registry(ref, pinned or ref.digest, login, scope)
            case "oci":
                return await self._from_layout(ref, pinned)
            case _:
                return await self._from_archive(ref, pinned)

    def is_ready(self, digest: str) -> bool:
        """Whether an image that was ready still is: a collection may have come between."""
        return self._records.get(digest) is not None

    def progress_of(self, reference: str, base_dir: str | None) -> Progress | None:
        """How far the pull is that somebody waits for who asked for this name, if there is one."""
        try:
            name = str(_parse(reference, base_dir))
        except ImageFailed:
            return None
        digest = self._waited_for.get(name)
        same = (one for one in self.pulls.values() if digest is not None and one.digest == digest)
        return self.pulls.get(name) or next(same, None)

    @property
    def is_busy(self) -> bool:
        """Whether anything is being pulled or unpacked."""
        return len(self._flights) > 0

    async def _open(self) -> None:
        """Make the folders, read what is there, remove what the dead have left half done."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(asyncio.to_thread(self._open_now))
        try:
            await asyncio.shield(self._opening)
        except OSError:
            self._opening = None
            raise

    def _open_now(self) -> None:
        for folder in _FOLDERS:
            (self.root / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(self.root / "partial")
        self._records.load()

    def _ready(
        self, digest: str, name: str | None = None, signature: Signature | None = None
    ) -> Image | None:
        """The image, if the store has it; ``name`` stands for it from now on."""
        record = self._records.get(digest)
        if record is None or not os.path.lexists(self.root / record.rootfs):
            return None
        if name is not None and (name not in record.names or record.names[name] != signature):
            record.names[name] = signature
            self._records.put(record)
        self._records.touch(digest)
        return Image(record.digest, self.root / record.rootfs, record.config)

    # --- from a registry --------------------------------------------------------------------------
    async def _from_registry(
        self, ref: ImageRef, digest: str | None, login: Login | None, scope: str | None
    ) -> Image:
        name = str(ref)
        raw: bytes | None = None
        digest = digest or (None if scope is None else self._resolved.get((scope, name)))
        if digest is None:
            digest, raw = await self._tag(ref, login)
            if scope is not None:
                self._remember(scope, name, digest)
        image = self._ready(digest, name if ref.digest is None and raw is not None else None)
        if image is not None:
            return image
        self._waited_for[name] = digest
        try:
            return await self._flights.join((digest, login), partial(self._pull, ref, digest, raw, login))
        finally:
            self._waited_for.pop(name, None)

    def _remember(self, scope: str, name: str, digest: str) -> None:
        self._resolved[scope, name] = digest
        if len(self._resolved) > _MOST_RESOLVED:
            del self._resolved[next(iter(self._resolved))]

    async def _tag(self, ref: ImageRef, login: Login | None) -> tuple[str, bytes | None]:
        """What the tag stands for. A registry that does not answer is done without, where that is known."""
        try:
            return await self._flights.join(("tag", str(ref), login), partial(self._ask, ref, login))
        except ImageFailed as error:
            known = self._records.named(str(ref))
            if not fetch.offline(error) or known is None:
                raise
            self._log.warning("the registry does not answer: taking the copy of this node", image=str(ref))
            return known.digest, None

    async def _ask(self, ref: ImageRef, login: Login | None) -> tuple[str, bytes]:
        """The digest, and the manifest or index; nothing of that where the image is here."""
        if self._records.named(str(ref)) is not None:
            digest = await self._tags.digest(ref, login)
            if digest is not None and self._ready(digest) is not None:
                return digest, b""
        async with working(self.root / "partial") as work:
            with self._begun(str(ref), work, ASKING):
                return await fetch.resolve_tag(self._skopeo(work), ref, login)

    async def _pull(self, ref: ImageRef, digest: str, raw: bytes | None, login: Login | None) -> Image:
        async with working(self.root / "partial") as work:
            with self._begun(str(ref), work, PULLING, digest) as progress:
                return await self._pull_into(work, progress, ref, digest, raw, login)

    async def _pull_into(
        self,
        work: Work,
        progress: Progress,
        ref: ImageRef,
        digest: str,
        raw: bytes | None,
        login: Login | None,
    ) -> Image:
        learning = asyncio.ensure_future(self._learn(progress, ref, raw, login))
        try:
            zstd = raw is not None and fetch.says_zstd(raw)
            skopeo, blobs = self._skopeo(work), self.root / "blobs"
            resolved = await fetch.pull(skopeo, ref, digest, login, blobs, zstd)
            learning.cancel()
            name = str(ref) if ref.digest is None else f"{ref.registry}/{ref.repository}@{digest}"
            return await self._unpack(work, digest, name, None, work.folder / "layout", resolved, progress)
        finally:
            learning.cancel()
            await asyncio.gather(learning, return_exceptions=True)

    async def _learn(self, progress: Progress, ref: ImageRef, raw: bytes | None, login: Login | None) -> None:
        """How much is to come, for those who look: a quick pull is over before anybody does."""
        blobs = self.root / "blobs"
        sizes = None if raw is None else fetch.layer_sizes(raw)
        if sizes is None:
            await asyncio.sleep(LEARN_AFTER_S)
            async with working(self.root / "partial") as work:
                sizes = await fetch.learn_sizes(self._skopeo(work), ref, str(progress.digest), raw, login)
        if sizes is not None:
            progress.expect(sizes, blobs)

    def _skopeo(self, work: Work) -> fetch.Skopeo:
        return fetch.skopeo_in(work, self._settings, self._settings.budget_bytes(self.root))

    def _begun(
        self, name: str, work: Work, step: str, digest: str | None = None
    ) -> AbstractContextManager[Progress]:
        progress = Progress(name, digest, step)
        progress.arrived = work.arrived_bytes
        if step == PULLING:
            self._log.info("pulling", image=name)
        return shown(self.pulls, progress)

    # --- from this machine ------------------------------------------------------------------------
    async def _from_layout(self, ref: ImageRef, pinned: str | None) -> Image:
        layout, name = Path(ref.path), str(ref)
        signature = _signature(layout / "index.json")
        known = None if pinned is not None else self._known(name, signature)
        if known is not None:
            return known
        resolved = await asyncio.to_thread(resolve, layout, ref.tag, pinned)
        digest = resolved.manifest.digest
        image = self._ready(digest, name if pinned is None else None, signature)
        if image is not None:
            return image

        async def make() -> Image:
            async with working(self.root / "partial") as work:
                return await self._unpack(work, digest, name, signature, layout, resolved, None)

        return await self._flights.join((digest, None), make)

    async def _from_archive(self, ref: ImageRef, pinned: str | None) -> Image:
        path, name = Path(ref.path), str(ref)
        signature = _signature(path)
        if signature is None:
            raise not_found(f"There is no file {path} on this node: correct image, or put the archive there.")
        image = self._known(name, signature)
        if image is None:
            key = ("archive", name, signature)
            image = await self._flights.join(key, partial(self._unarchive, ref, path, signature))
        if pinned is not None and image.digest != pinned:
            raise not_found(
                f"The archive {path} holds another image than the task began with ({pinned}): "
                "submit the job again."
            )
        return image

    def _known(self, name: str, signature: Signature | None) -> Image | None:
        """What the name stood for, if its file has not changed since."""
        record = None if signature is None else self._records.named(name)
        if record is None or record.names[name] != signature:
            return None
        return self._ready(record.digest)

    async def _unarchive(self, ref: ImageRef, path: Path, signature: Signature) -> Image:
        async with working(self.root / "partial") as work:
            with self._begun(str(ref), work, PULLING) as progress:
                resolved = await fetch.unarchive(self._skopeo(work), ref, path, self.root / "blobs")
                digest = resolved.manifest.digest
                ready = self._ready(digest, str(ref), signature)
                if ready is not None:
                    return ready
                layout = work.folder / "layout"
                return await self._unpack(work, digest, str(ref), signature, layout, resolved, progress)

    # --- unpacking --------------------------------------------------------------------------------
    async def _unpack(
        self,
        work: Work,
        digest: str,
        name: str,
        signature: Signature | None,
        layout: Path,
        resolved: Resolved,
        progress: Progress | None,
    ) -> Image:
        if progress is not None:
            progress.enter(UNPACKING)
        limits = Limits(self._settings.budget_bytes(self.root), self._settings.max_files)
        shown = name if progress is not None else f"in {layout}"
        begun_s = time.monotonic()
        try:
            unpacked = await unpack(self.root, shown, layout, resolved, work, limits)
        except ImageFailed as error:
            if progress is not None and error.reason == Reason.IMAGE_CORRUPT:
                self._drop_blobs(resolved)  # the next pull gets them again
            raise
        blobs = [] if progress is None else [Part(one.digest, one.size) for one in resolved.blobs]
        record = Record(
            digest=digest,
            manifest=resolved.manifest.digest,
            names={name: signature},
            config=resolved.config,
            layers=unpacked.layers,
            blobs=tuple(blobs),
            rootfs=unpacked.rootfs,
            pulled_at=time.time_ns() // 1_000_000,
            boot=boot_id(),
        )
        self._records.put(record)
        self._log.info(
            "image is ready",
            image=name,
            digest=digest,
            pull_s=None if progress is None else round(begun_s - progress.begun_s, 3),
            unpack_s=round(time.monotonic() - begun_s, 3),
        )
        self._beside.start(self._settle(digest))
        return Image(digest, self.root / record.rootfs, record.config)

    def _drop_blobs(self, resolved: Resolved) -> None:
        kept = {part.digest for record in self._records for part in record.blobs}
        for blob in resolved.blobs:
            if blob.digest not in kept:
                (self.root / "blobs" / blob.digest.replace(":", "/")).unlink(missing_ok=True)

    async def _settle(self, digest: str) -> None:
        """After an image has come, while it is used already: have it on the disk, and keep the budget."""
        try:
            await asyncio.to_thread(flush, self.root)
            self._records.flushed(digest)
            if self._collector.total_bytes() > self._settings.budget_bytes(self.root):
                done = await self.collect()
                self._log.info("collected images", removed=done.removed, freed_bytes=done.freed_bytes)
        except OSError as error:
            self._log.warning("an image is not safe from a power cut", digest=digest, reason=str(error))

    def _cannot_write(self, name: str, error: OSError) -> ImageFailed | NodeError:
        if error.errno in NO_ROOM:
            return disk_full(f"the image {name}")
        return NodeError(f"The node cannot keep the image {name} under {self.root}: {error.strerror}.")

    # --- for people -------------------------------------------------------------------------------
    async def stored(self) -> list[Stored]:
        """All images, the latest used first, behind those that are being pulled."""
        await self._open()
        in_use = self.in_use()
        pulls = [
            Stored(digest="", names=(name,), progress=str(progress)) for name, progress in self.pulls.items()
        ]
        used = self._records.used_s
        ordered = sorted(self._records, key=lambda one: -used(one.digest))
        return pulls + [
            Stored(
                digest=record.digest,
                names=tuple(sorted(record.names)),
                unpacked_bytes=sum(part.size_bytes for part in record.layers),
                compressed_bytes=sum(part.size_bytes for part in record.blobs),
                pulled_at=record.pulled_at,
                used_at=int(used(record.digest) * 1000),
                attempts=in_use.get(record.digest, 0),
            )
            for record in ordered
        ]

    async def remove(self, reference: str, base_dir: str | None = None) -> Collected:
        """Remove an image by its name or digest. Raises NotFound, RequestError where it is in use."""
        await self._open()
        record = self._find(reference, base_dir)
        if attempts := self.in_use().get(record.digest, 0):
            raise RequestError(
                f"The image {reference} is in use by {attempts} attempts: cancel them, or wait."
            )
        before = self._collector.total_bytes()
        self._collector.take_out(record)
        done = await self.collect(budget_bytes=before)
        left = self._collector.total_bytes()
        return msgspec.structs.replace(done, removed=(reference,), freed_bytes=before - left, left_bytes=left)

    def _find(self, reference: str, base_dir: str | None) -> Record:
        digest = reference.removeprefix("sha256:")
        if len(digest) >= _LEAST_PREFIX and all(letter in "0123456789abcdef" for letter in digest):
            found = [one for one in self._records if one.digest.partition(":")[2].startswith(digest)]
            if len(found) == 1:
                return found[0]
        try:
            record = self._records.named(str(_parse(reference, base_dir)))
        except ImageFailed as error:
            raise RequestError(str(error)) from None
        if record is None:
            raise NotFound(f"This node has no image {reference}: 'tow image ls' shows those that it has.")
        return record

    async def collect(self, budget_bytes: int | None = None, *, dry_run: bool = False) -> Collected:
        """Get below the budget (default: the node's own), and remove what belongs to no image."""
        await self._open()
        budget = self._settings.budget_bytes(self.root) if budget_bytes is None else budget_bytes
        idle = not self.is_busy
        return await self._collector.collect(budget, self.in_use(), orphans=idle, dry_run=dry_run)


def _signature(path: Path) -> Signature | None:
    """Tells apart any two contents of a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _parse(reference: str, base_dir: str | None) -> ImageRef:
    """The image's name with an absolute path. Raises ImageFailed."""
    try:
        ref = parse_image(reference)
        return ref._replace(path=resolve_path(ref.path, base_dir)) if ref.local else ref
    except ValueError as error:
        raise unusable(reference, error) from None
