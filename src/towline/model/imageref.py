"""Names of images: in registries as Docker writes them, in layouts and archives as skopeo does.

busybox                                   docker.io/library/busybox:latest
ghcr.io/org/app:1.2@sha256:…              the digest counts, the tag is for people
oci:PATH[:TAG]                            a folder that is an OCI layout
oci-archive:PATH[:TAG]                    such a layout as a tar file
docker-archive:PATH[:NAME[:TAG]]          what `docker save` writes
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

ImageKind = Literal["registry", "oci", "oci-archive", "docker-archive"]

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?\Z")
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}\Z")
_ELSEWHERE = ("docker-daemon:", "containers-storage:")
_ARCHIVES: dict[str, ImageKind] = {"oci-archive:": "oci-archive", "docker-archive:": "docker-archive"}
_ALIASES = ("index.docker.io", "registry-1.docker.io")

_TAG_RULE = "a tag is 1 to 128 letters, digits, _, . and -"
_SAMPLE = "busybox:1.36, ghcr.io/org/app:1.2 or oci:PATH:TAG"


class ImageRef(NamedTuple):
    """An image's name, taken apart.

    In a registry: ``registry`` (``docker.io``, ``localhost:5000``), ``repository``
    (``library/busybox``), ``tag`` and ``digest`` (``sha256:…``), of which at least one is set; with
    both, the digest says which image. Of a layout or archive: ``path`` (maybe relative), and ``tag``,
    which names one image in it (None: the only one; in a Docker archive it is as ``busybox:1.36``).
    """

    kind: ImageKind
    path: str = ""
    registry: str = ""
    repository: str = ""
    tag: str | None = None
    digest: str | None = None

    @property
    def local(self) -> bool:
        """Whether it is a file or folder of the machine."""
        return self.kind != "registry"

    def __str__(self) -> str:
        """The full name; what it stands for does not hang on any default."""
        if self.local:
            return f"{self.kind}:{self.path}" + (f":{self.tag}" if self.tag is not None else "")
        name = f"{self.registry}/{self.repository}" + (f":{self.tag}" if self.tag is not None else "")
        return name + (f"@{self.digest}" if self.digest is not None else "")


def parse_image(image: str) -> ImageRef:
    """Take an image's name apart. Raises ValueError with a sentence that says what to write instead."""
    if image.startswith("oci:"):
        return _in_layout(image)
    for prefix, kind in _ARCHIVES.items():
        if image.startswith(prefix):
            return _in_archive(image.removeprefix(prefix), kind)
    if image.startswith(_ELSEWHERE):
        shown = image if image.isprintable() and " " not in image else image.partition(":")[0] + ":…"
        raise ValueError(f"use {_SAMPLE} (skopeo copy {shown[:200]} oci:PATH:TAG makes one)")
    if image.startswith(("./", "../", "/", "~")):
        raise ValueError(
            "a path needs what it is before it: use oci:PATH:TAG, docker-archive:PATH or oci-archive:PATH"
        )
    if image.startswith(("http://", "https://")):
        raise ValueError(f"it is an address: leave {image.partition('//')[0]}// out")
    return _in_registry(image.removeprefix("docker://"))


def _in_layout(image: str) -> ImageRef:
    rest = image.removeprefix("oci:")
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        path, tag = rest, ""
    elif not _TAG.match(tag):
        raise ValueError(f"{_TAG_RULE}: use oci:PATH:TAG")
    if not path or not path.isprintable():
        raise ValueError("it names no folder: use oci:PATH:TAG")
    return ImageRef("oci", path=path, tag=tag or None)


def _in_archive(rest: str, kind: ImageKind) -> ImageRef:
    path, colon, name = rest.partition(":")
    if not path or not path.isprintable():
        raise ValueError(f"it names no file: use {kind}:PATH")
    if not colon:
        return ImageRef(kind, path=path)
    if kind == "oci-archive" and not _TAG.match(name):
        raise ValueError(f"{_TAG_RULE}: use {kind}:PATH:TAG, with no other colon in it")
    if kind == "docker-archive":
        try:
            inner = _in_registry(name)
        except ValueError as error:
            raise ValueError(f"of the name in the archive {error}") from None
        if inner.digest is not None:
            raise ValueError("images in an archive have no digest: use docker-archive:PATH:NAME:TAG")
    return ImageRef(kind, path=path, tag=name)


def _in_registry(name: str) -> ImageRef:
    if not name:
        raise ValueError(f"use {_SAMPLE}")
    rest, at, digest = name.partition("@")
    if at and not _DIGEST.match(digest):
        raise ValueError("a digest is sha256: and 64 hexadecimal digits: use NAME@sha256:…")
    place, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG.match(tag):
        raise ValueError(f"{_TAG_RULE}: use NAME:TAG")
    registry, repository = _split(place + slash + last)
    if not at and not colon:
        if _IMAGE_ID.match(repository.removeprefix("library/")):
            raise ValueError("it is the id of a local image: use its name, or NAME@sha256:… with the digest")
        tag = DEFAULT_TAG
    return ImageRef(
        "registry", registry=registry, repository=repository, tag=tag or None, digest=digest or None
    )


def _split(name: str) -> tuple[str, str]:
    """(registry, repository) of a name without tag and digest, by Docker's rule of what is which."""
    first, slash, rest = name.partition("/")
    if not slash or not (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        registry, repository = DEFAULT_REGISTRY, name
    elif not _REGISTRY.match(first):
        raise ValueError(
            "its registry is not HOST or HOST:PORT: use ghcr.io/org/app:1.2 or localhost:5000/app"
        )
    else:
        registry, repository = first.lower(), rest
    if registry in _ALIASES:
        registry = DEFAULT_REGISTRY
    _check_repository(repository)
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    if len(registry) + len(repository) > MAX_NAME:
        raise ValueError(f"it is over {MAX_NAME} characters long")
    return registry, repository


def _check_repository(repository: str) -> None:
    if repository != repository.lower():
        lower = repository.lower()
        raise ValueError(
            "the names of images are in lower case"
            + (f": use {lower}" if lower.isascii() and lower.isprintable() and len(lower) < 100 else "")
        )
    if not all(_PART.match(part) for part in repository.split("/")):
        raise ValueError(
            f"a name has lower-case letters, digits and single ., _ and - between them: use {_SAMPLE}"
        )
