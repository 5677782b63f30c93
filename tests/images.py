"""Images made by hand, also such as no tool would make."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from towline.images.layout import native_architecture

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def file(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, size=len(content), **fields), content


def folder(name: str, **fields: Any) -> tarfile.TarInfo:
    return entry(name, tarfile.DIRTYPE, **fields)


def link(name: str, to: str) -> tarfile.TarInfo:
    return entry(name, tarfile.SYMTYPE, linkname=to)


def hard_link(name: str, to: str) -> tarfile.TarInfo:
    return entry(name, tarfile.LNKTYPE, linkname=to)


Entry = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]


def archive(*entries: Entry) -> bytes:
    """A layer as a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for one in entries:
            info, content = one if isinstance(one, tuple) else (one, None)
            tar.addfile(info, None if content is None else io.BytesIO(content))
    return out.getvalue()


class Layout:
    """An OCI layout that is written part by part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tags: list[dict[str, Any]] = []
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, body: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(body)
        (self.path / "blobs" / digest.replace(":", "/")).write_bytes(body)
        return {"mediaType": media_type, "digest": digest, "size": len(body)}

    def image(
        self, layers: Iterable[bytes], *, diff_ids: list[str] | None = None, **config: Any
    ) -> dict[str, Any]:
        """The descriptor of an image of these layers (tar archives)."""
        tars = list(layers)
        descriptors = [self.blob(gzip.compress(tar, 1, mtime=0), LAYER) for tar in tars]
        return self.manifest(descriptors, diff_ids or [digest_of(tar) for tar in tars], **config)

    def manifest(self, layers: list[dict[str, Any]], diff_ids: list[str], **config: Any) -> dict[str, Any]:
        document = {
            "architecture": native_architecture(),
            "os": "linux",
            "config": {"Cmd": ["sh"], **config},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        described = self.blob(json.dumps(document).encode(), CONFIG)
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": layers}
        return self.blob(json.dumps(body).encode(), MANIFEST)

    def tag(self, descriptor: dict[str, Any], tag: str = "1") -> str:
        """Give the image a tag; returns its name."""
        self._tags = [
            one for one in self._tags if one["annotations"]["org.opencontainers.image.ref.name"] != tag
        ]
        self._tags.append({**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}})
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self._tags}))
        return f"oci:{self.path}:{tag}"

    def body(self, digest: str) -> bytes:
        return (self.path / "blobs" / digest.replace(":", "/")).read_bytes()
