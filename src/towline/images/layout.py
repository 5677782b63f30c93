"""Reads an OCI image layout on this machine: tags, manifests, configurations, and their digests.

The format is https://github.com/opencontainers/image-spec/blob/main/image-layout.md (version 1.0.0).
Everything small is read whole and checked against its digest; layers are only unpacked later.
"""

from __future__ import annotations

import hashlib
import platform
import re
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
from msgspec import Struct, field

from towline.images.failures import corrupt, not_found

_MAX_DOCUMENT_BYTES = 8 * 1024**2
_MAX_LAYERS = 500
_REF_NAME = "org.opencontainers.image.ref.name"
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_LAYER_TYPES = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_DIGEST = re.compile(r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})\Z")


class Platform(Struct, frozen=True):
    architecture: str = ""
    os: str = ""


class Descriptor(Struct, frozen=True, rename="camel"):
    """Names a blob. ``size`` is in bytes."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None

    @property
    def tag(self) -> str | None:
        return (self.annotations or {}).get(_REF_NAME)


class Index(Struct, frozen=True):
    manifests: tuple[Descriptor, ...]


class Manifest(Struct, frozen=True):
    config: Descriptor
    layers: tuple[Descriptor, ...]


class ImageConfig(Struct, frozen=True, rename="pascal"):
    """What an image says about how to run it; empty where it says nothing."""

    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    workdir: str | None = field(default=None, name="WorkingDir")
    user: str | None = None


class _Rootfs(Struct, frozen=True):
    diff_ids: tuple[str, ...] = ()


class _ConfigBlob(Struct, frozen=True):
    config: ImageConfig | None = None
    rootfs: _Rootfs = _Rootfs()


class Resolved(NamedTuple):
    """One image of a layout for this machine's architecture. ``manifest`` and ``config_blob`` name its
    documents, ``diff_ids`` the uncompressed content of each layer."""

    manifest: Descriptor
    config_blob: Descriptor
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    config: ImageConfig

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Everything that belongs to it."""
        return self.manifest, self.config_blob, *self.layers


def native_architecture() -> str:
    """This machine's architecture by its name in images: amd64, arm64, …"""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def blob_path(layout: Path, digest: str) -> Path:
    """Where a blob lies. Raises ImageFailed for a digest that is none (it becomes part of a path)."""
    if not _DIGEST.match(digest):
        raise corrupt(f"The image in {layout} names a blob by {digest[:80]!r}, which is no digest.")
    algorithm, _, value = digest.partition(":")
    return layout / "blobs" / algorithm / value


def resolve(layout: Path, tag: str | None, digest: str | None = None) -> Resolved:
    """Find the image of a tag (None: the only one, else ``latest``), or of a digest. Raises ImageFailed."""
    found = _choose(layout, _read_index(layout), tag) if digest is None else _named(layout, digest)
    for _ in range(4):  # an index may name another index; more levels than that are a mistake
        body = _read_blob(layout, found)
        if found.media_type not in _INDEX_TYPES and b'"manifests"' not in body:
            break
        found = _native(layout, _decode(body, Index, layout, found.digest))
    else:
        raise corrupt(f"The image in {layout} nests its indexes too deep.")
    manifest = _decode(body, Manifest, layout, found.digest)
    config = _decode(_read_blob(layout, manifest.config), _ConfigBlob, layout, manifest.config.digest)
    for layer in manifest.layers:
        _check_layer(layout, layer)
    _check_diff_ids(layout, manifest, config.rootfs.diff_ids)
    settings = config.config or ImageConfig()
    return Resolved(found, manifest.config, manifest.layers, config.rootfs.diff_ids, settings)


def is_digest(text: str) -> bool:
    """Whether it is one that can be part of a path."""
    return _DIGEST.match(text) is not None


def _named(layout: Path, digest: str) -> Descriptor:
    try:
        size = blob_path(layout, digest).stat().st_size
    except OSError:
        raise not_found(f"The image {digest} is not in {layout} any more: submit the job again.") from None
    return Descriptor(digest=digest, size=size)


def _check_diff_ids(layout: Path, manifest: Manifest, diff_ids: tuple[str, ...]) -> None:
    if len(manifest.layers) > _MAX_LAYERS:
        raise corrupt(f"The image in {layout} has {len(manifest.layers)} layers: {_MAX_LAYERS} are allowed.")
    if len(diff_ids) != len(manifest.layers) or not all(map(is_digest, diff_ids)):
        raise corrupt(
            f"The image in {layout} has {len(manifest.layers)} layers, which its config "
            f"{manifest.config.digest} does not name one by one: build it again."
        )


def _read_index(layout: Path) -> Index:
    path = layout / "index.json"
    try:
        body = _read(path)
    except FileNotFoundError:
        if not layout.exists():
            raise not_found(
                f"There is no folder {layout} on this node: correct image, or put the layout there."
            ) from None
        raise not_found(
            f"The folder {layout} is no OCI layout (it has no index.json): umoci or "
            f"'skopeo copy docker://NAME oci:{layout}:TAG' makes one."
        ) from None
    except NotADirectoryError:
        raise not_found(f"{layout} is no folder: image names the folder of an OCI layout.") from None
    except OSError as error:
        raise not_found(f"The image index {path} cannot be read: {error.strerror}.") from None
    return _decode(body, Index, layout, "index.json")


def _choose(layout: Path, index: Index, tag: str | None) -> Descriptor:
    if tag is None and len(index.manifests) == 1:
        return index.manifests[0]
    wanted = tag or "latest"
    for descriptor in index.manifests:
        if descriptor.tag == wanted:
            return descriptor
    tags = sorted({d.tag for d in index.manifests if d.tag is not None})
    has = f"it has {', '.join(tags[:20])}" if tags else "it has none"
    more = f" and {len(tags) - 20} more" if len(tags) > 20 else ""
    raise not_found(f"The image layout {layout} has no tag {wanted!r}: {has}{more}.")


def _native(layout: Path, index: Index) -> Descriptor:
    for descriptor in index.manifests:
        if _is_native(descriptor):
            return descriptor
    ours = native_architecture()
    offered = sorted({d.platform.architecture for d in index.manifests if d.platform is not None})
    raise not_found(
        f"The image in {layout} is not made for this node's architecture {ours}, "
        f"only for {', '.join(offered)}."
    )


def native_digest(raw: bytes) -> str | None:
    """Of an index, the digest of the image for this machine; None where it has none, or is no index."""
    try:
        manifests = msgspec.json.decode(raw, type=Index).manifests
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    found = next((one.digest for one in manifests if _is_native(one)), None)
    return found if found is not None and is_digest(found) else None


def _is_native(descriptor: Descriptor) -> bool:
    where = descriptor.platform
    return where is None or (where.architecture == native_architecture() and where.os in ("", "linux"))


def _check_layer(layout: Path, layer: Descriptor) -> None:
    if layer.media_type not in _LAYER_TYPES:
        raise corrupt(
            f"The image in {layout} has a layer of the kind {layer.media_type[:80]!r}, "
            f"which cannot be unpacked here: copy it with 'skopeo copy --dest-compress-format gzip'."
        )
    try:
        size = blob_path(layout, layer.digest).stat().st_size
    except OSError:
        raise corrupt(
            f"The image in {layout} lacks its layer {layer.digest}: build or copy it again."
        ) from None
    if size != layer.size:
        raise corrupt(
            f"The layer {layer.digest} in {layout} has {size} bytes in place of {layer.size}: "
            f"build or copy the image again."
        )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        body = file.read(_MAX_DOCUMENT_BYTES + 1)
    if len(body) > _MAX_DOCUMENT_BYTES:
        raise corrupt(f"{path} is larger than {_MAX_DOCUMENT_BYTES:,} bytes: no image needs that much.")
    return body


def _read_blob(layout: Path, descriptor: Descriptor) -> bytes:
    try:
        body = _read(blob_path(layout, descriptor.digest))
    except OSError:
        raise corrupt(
            f"The image in {layout} lacks its part {descriptor.digest}: build or copy it again."
        ) from None
    actual = hashlib.new(descriptor.digest.partition(":")[0], body).hexdigest()
    _compare(layout, descriptor.digest, actual)
    return body


def _compare(layout: Path, digest: str, actual: str) -> None:
    algorithm, _, wanted = digest.partition(":")
    if actual != wanted:
        raise corrupt(
            f"The content of {digest} in {layout} does not match its digest (it is {algorithm}:{actual}): "
            f"build or copy the image again."
        )


_T = TypeVar("_T")


def _decode(body: bytes, kind: type[_T], layout: Path, what: str) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise corrupt(f"The image in {layout} is damaged: {what} does not read ({error}).") from None
