"""Gets an image from a registry or an archive into a layout of its own, whose blobs are the store's:
a layer that is there already is not sent again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from towline.images.failures import ImageFailed, corrupt, unpullable
from towline.images.layout import Resolved, is_digest, native_digest, resolve
from towline.images.partial import Work
from towline.images.settings import ImageSettings
from towline.images.skopeo import Login, Skopeo
from towline.model.imageref import ImageRef
from towline.model.states import Reason

TAG = "it"
_RETRIES = "2"
_MAX_MANIFEST_BYTES = 4 * 1024**2


def docker_name(ref: ImageRef, digest: str | None = None) -> str:
    """As skopeo wants it: with a digest or a tag, never both."""
    which = f"@{digest or ref.digest}" if digest or ref.digest else f":{ref.tag}"
    return f"docker://{ref.registry}/{ref.repository}{which}"


def _tls(settings: ImageSettings, ref: ImageRef, option: str) -> list[str]:
    return [f"--{option}=false"] if settings.is_insecure(ref.registry) else []


def skopeo_in(work: Work, settings: ImageSettings, most_bytes: int) -> Skopeo:
    return Skopeo(settings, work.folder, work.lock, work.arrived_bytes, most_bytes)


async def resolve_tag(skopeo: Skopeo, ref: ImageRef, login: Login | None) -> tuple[str, bytes]:
    """(digest, manifest or index) that the tag stands for now. Raises ImageFailed, NodeError."""
    tls = _tls(skopeo.settings, ref, "tls-verify")
    raw = await skopeo.run(str(ref), ["inspect", "--raw", *tls, docker_name(ref)], login)
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise corrupt(f"The manifest of {ref} is larger than {_MAX_MANIFEST_BYTES:,} bytes.")
    return f"sha256:{hashlib.sha256(raw).hexdigest()}", raw


async def pull(
    skopeo: Skopeo, ref: ImageRef, digest: str, login: Login | None, blobs: Path, recompress: bool
) -> Resolved:
    """Copy the image of the digest, of an index the native one. Raises ImageFailed, NodeError."""
    options = ["--retry-times", _RETRIES, *_tls(skopeo.settings, ref, "src-tls-verify")]
    if recompress:
        options += ["--dest-compress-format", "gzip"]
    named = f"{ref.registry}/{ref.repository}@{digest}"
    return await _copy(skopeo, named, docker_name(ref, digest), options, login, blobs)


async def unarchive(skopeo: Skopeo, ref: ImageRef, path: Path, blobs: Path) -> Resolved:
    """Copy an image out of an archive. Raises ImageFailed, NodeError."""
    if ":" in str(path):  # skopeo takes all behind the first colon of a path as a name
        (skopeo.work / "archive").symlink_to(path)
        path = Path("archive")
    source = f"{ref.kind}:{path}" + (f":{ref.tag}" if ref.tag else "")
    options = ["--dest-oci-accept-uncompressed-layers"]
    return await _copy(skopeo, str(ref), source, options, None, blobs)


async def _copy(
    skopeo: Skopeo, name: str, source: str, options: list[str], login: Login | None, blobs: Path
) -> Resolved:
    layout = skopeo.work / "layout"
    layout.mkdir()
    (layout / "blobs").symlink_to(blobs)
    # Relative to the folder that it runs in, which may have a colon in its path: skopeo takes what is
    # behind one as the tag.
    target = f"oci:layout:{TAG}"
    await skopeo.run(name, ["copy", "--quiet", *options, source, target], login)
    try:
        return resolve(layout, TAG)
    except ImageFailed as error:
        # The layout is ours and gone in a moment: people know the image by its name.
        words = str(error).replace(f"The image in {layout}", f"The image {name}").replace(f"{layout}", name)
        raise ImageFailed(words, Reason(error.reason)) from None


def says_zstd(raw: bytes) -> bool:
    """Whether layers of this manifest are compressed in a way that is not read here."""
    return b"+zstd" in raw or b".zstd" in raw


def layer_sizes(raw: bytes) -> dict[str, int] | None:
    """By digest, of a manifest's layers; None for an index, or what is no manifest."""
    try:
        layers = json.loads(raw)["layers"]
        return {str(layer["digest"]): int(layer["size"]) for layer in layers if is_digest(layer["digest"])}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


async def learn_sizes(
    skopeo: Skopeo, ref: ImageRef, digest: str, raw: bytes | None, login: Login | None
) -> dict[str, int] | None:
    """``layer_sizes`` of the native image of a digest, whose manifest or index ``raw`` may be. Raises
    ImageFailed, NodeError."""
    for _ in range(3):  # an index, maybe in an index
        if raw is None:
            tls = _tls(skopeo.settings, ref, "tls-verify")
            raw = await skopeo.run(str(ref), ["inspect", "--raw", *tls, docker_name(ref, digest)], login)
        sizes, native = layer_sizes(raw), native_digest(raw)
        if sizes is not None or native is None:
            return sizes
        digest, raw = native, None
    return None


def offline(error: ImageFailed) -> bool:
    """Whether it says that the registry does not answer, rather than that it refuses."""
    return error.reason == unpullable("").reason
