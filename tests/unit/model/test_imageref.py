"""Names of images: as Docker writes them, layouts, archives, and what is told of all others."""

from __future__ import annotations

import pytest
from tests.unit.model.loading import tree_problems

from towline.model.document import load_tree
from towline.model.places import ImageRef, parse_image

DIGEST = "sha256:" + "0123456789abcdef" * 4


def job(image: str) -> dict[str, object]:
    return {"name": "job", "tasks": {"a": {"image": image}}}


@pytest.mark.parametrize(
    ("image", "path", "tag"),
    [
        ("oci:./images/busybox:1.36", "./images/busybox", "1.36"),
        ("oci:/images/busybox", "/images/busybox", None),
        ("oci:x", "x", None),
        ("oci:host:80/x", "host:80/x", None),
        ("oci:a:b:c", "a:b", "c"),
    ],
)
def test_images_in_a_layout(image, path, tag):
    assert parse_image(image) == ImageRef("oci", path=path, tag=tag)
    assert str(parse_image(image)) == image
    assert load_tree(job(image)).tasks["a"].image == image


@pytest.mark.parametrize(
    ("image", "kind", "path", "tag"),
    [
        ("docker-archive:./a.tar", "docker-archive", "./a.tar", None),
        ("docker-archive:/x/a.tar:busybox", "docker-archive", "/x/a.tar", "busybox"),
        ("docker-archive:a.tar:ghcr.io/a/b:1.2", "docker-archive", "a.tar", "ghcr.io/a/b:1.2"),
        ("oci-archive:a.tar", "oci-archive", "a.tar", None),
        ("oci-archive:a.tar:1.36", "oci-archive", "a.tar", "1.36"),
    ],
)
def test_images_in_an_archive(image, kind, path, tag):
    assert parse_image(image) == ImageRef(kind, path=path, tag=tag)
    assert parse_image(image).local
    assert str(parse_image(image)) == image
    assert load_tree(job(image)).tasks["a"].image == image


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker://busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        (f"docker.io/library/busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"busybox:1.36@{DIGEST}", f"docker.io/library/busybox:1.36@{DIGEST}"),
        ("org/app", "docker.io/org/app:latest"),
        ("org/team/app:x_Y.z-1", "docker.io/org/team/app:x_Y.z-1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b:tag", "localhost:5000/a/b:tag"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("Registry.example.com/app", "registry.example.com/app:latest"),
        ("docker://ghcr.io/org/app:1", "ghcr.io/org/app:1"),
        ("127.0.0.1:5000/a__b/c-d--e.f:1", "127.0.0.1:5000/a__b/c-d--e.f:1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("registry", "docker.io/library/registry:latest"),
        ("oci", "docker.io/library/oci:latest"),
    ],
)
def test_images_in_a_registry(image, full):
    found = parse_image(image)
    assert str(found) == full
    assert found.kind == "registry" and not found.local
    assert parse_image(full) == found
    assert load_tree(job(image)).tasks["a"].image == image


def test_the_parts_of_a_registry_image():
    assert parse_image(f"localhost:5000/a/b:tag@{DIGEST}") == ImageRef(
        "registry", registry="localhost:5000", repository="a/b", tag="tag", digest=DIGEST
    )


@pytest.mark.parametrize(
    ("image", "remedy"),
    [
        ("", "use busybox:1.36, ghcr.io/org/app:1.2 or oci:PATH:TAG"),
        ("oci:", "it names no folder: use oci:PATH:TAG"),
        ("oci::tag", "it names no folder: use oci:PATH:TAG"),
        ("oci:a:b c", "a tag is 1 to 128 letters"),
        ("oci:a\nb", "it names no folder"),
        ("oci-archive:", "it names no file: use oci-archive:PATH"),
        ("docker-archive::x", "it names no file: use docker-archive:PATH"),
        ("oci-archive:a.tar:x/y", "a tag is 1 to 128 letters"),
        (
            "docker-archive:a.tar:App",
            "of the name in the archive the names of images are in lower case: use app",
        ),
        (f"docker-archive:a.tar:x@{DIGEST}", "images in an archive have no digest"),
        ("docker-daemon:busybox:latest", "(skopeo copy docker-daemon:busybox:latest oci:PATH:TAG makes one)"),
        ("containers-storage:x y", "(skopeo copy containers-storage:… oci:PATH:TAG makes one)"),
        ("./images/busybox", "a path needs what it is before it: use oci:PATH:TAG, docker-archive:PATH"),
        ("/images/busybox.tar", "a path needs what it is before it"),
        ("https://ghcr.io/a/b", "it is an address: leave https:// out"),
        ("Busybox", "the names of images are in lower case: use busybox"),
        ("what is this?", "a name has lower-case letters, digits and single ., _ and - between them"),
        ("a//b", "a name has lower-case letters"),
        ("-a", "a name has lower-case letters"),
        ("a/", "a name has lower-case letters"),
        ("busybox:", "a tag is 1 to 128 letters, digits, _, . and -: use NAME:TAG"),
        ("busybox:a b", "a tag is 1 to 128 letters"),
        ("busybox@sha256:0", "a digest is sha256: and 64 hexadecimal digits: use NAME@sha256:…"),
        ("busybox@", "a digest is sha256: and 64 hexadecimal digits"),
        ("exa_mple.com/app", "its registry is not HOST or HOST:PORT"),
        ("localhost:port/app", "its registry is not HOST or HOST:PORT"),
        ("0123456789abcdef" * 4, "it is the id of a local image"),
        ("x" * 250, "it is over 255 characters long"),
        ("busybox\n", "a name has lower-case letters"),
        ("\x1b[2J", "lower case"),
    ],
)
def test_other_images_are_refused_with_what_to_do(image, remedy):
    (found,) = tree_problems(job(image))
    assert found.where == "tasks.a.image" and found.message.startswith("is ")
    assert remedy in found.remedy
    assert str(found).isprintable()
