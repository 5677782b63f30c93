# ruff: noqa: ASYNC240 - small files of the test's own
"""Layers become one folder, as the image specification says, and what is hostile in them is refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest
from tests.images import LAYER, Entry, Layout, archive, digest_of, entry, file, folder, hard_link, link

from towline.images import ImageFailed, ImageStore
from towline.images.settings import ImageSettings
from towline.model.states import Reason

pytestmark = pytest.mark.containers


async def rootfs_of(store: ImageStore, made: Layout, *layers: bytes) -> Path:
    return (await store.ensure(made.tag(made.image(layers)), None)).rootfs


def tree(root: Path) -> dict[str, str]:
    """Every path below the root: a file's content, a link's target, a folder's slash."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"  # noqa: PTH115
        else:
            found[name] = "/" if path.is_dir() else path.read_text()
    return found


async def test_layers_lie_over_each_other(store: ImageStore, made: Layout) -> None:
    lower = archive(
        folder("a"), file("a/kept", b"1"), file("a/changed", b"1"), file("a/gone", b"1"),
        folder("b"), file("b/all", b"1"), folder("b/deep"), file("b/deep/all", b"1"),
        folder("c"), file("c/was-a-folder", b"1"), file("d", b"1"), link("e", "d"),
    )  # fmt: skip
    upper = archive(
        file("a/changed", b"2"), file("a/.wh.gone"), folder("b"), file("b/.wh..wh..opq"),
        file("b/new", b"2"), file("c", b"2"), folder("d"), file("d/now-a-folder", b"2"), link("e", "a/kept"),
    )  # fmt: skip
    root = await rootfs_of(store, made, lower, upper)
    assert tree(root) == {
        "a": "/", "a/changed": "2", "a/kept": "1", "b": "/", "b/new": "2", "c": "2",
        "d": "/", "d/now-a-folder": "2", "e": "-> a/kept",
    }  # fmt: skip


async def test_a_layer_hides_only_what_is_below_it(store: ImageStore, made: Layout) -> None:
    lower = archive(folder("a"), file("a/x", b"1"))
    upper = archive(file("a/.wh.x"), file("a/x", b"2"), file(".wh.nothing"), file("nowhere/.wh.y"))
    assert tree(await rootfs_of(store, made, lower, upper)) == {"a": "/", "a/x": "2"}


async def test_modes_owners_times_and_attributes_are_those_of_the_archive(
    store: ImageStore, made: Layout
) -> None:
    attribute = {"SCHILY.xattr.user.colour": "blue", "SCHILY.xattr.trusted.overlay.opaque": "y"}
    root = await rootfs_of(
        store,
        made,
        archive(
            folder("sticky", mode=0o1777, mtime=1000),
            file("sticky/tool", b"x", mode=0o4755, uid=12, gid=34, mtime=1_600_000_000),
            file("plain", b"y", mode=0o640, pax_headers=attribute),
            folder("closed", mode=0o500, uid=5),
            file("closed/in", b"z"),
            link("l", "/etc/passwd"),
        ),
    )
    assert stat.S_IMODE((root / "sticky").stat().st_mode) == 0o1777
    assert (root / "sticky").stat().st_mtime == 1000
    tool = (root / "sticky/tool").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_uid, tool.st_gid) == (0o4755, 12, 34)
    assert tool.st_mtime == 1_600_000_000
    assert stat.S_IMODE((root / "plain").stat().st_mode) == 0o640
    assert "trusted.overlay.opaque" not in os.listxattr(root / "plain")
    assert ((root / "closed").stat().st_uid, stat.S_IMODE((root / "closed").stat().st_mode)) == (5, 0o500)
    assert (root / "l").is_symlink()


async def test_what_a_layer_does_not_say_of_a_folder_stays(store: ImageStore, made: Layout) -> None:
    lower = archive(folder("tmp", mode=0o1777, uid=7), folder("own", mode=0o700))
    upper = archive(file("tmp/x", b"1"), folder("own", mode=0o711), file("new/deep/y", b"2"))
    root = await rootfs_of(store, made, lower, upper)
    assert (stat.S_IMODE((root / "tmp").stat().st_mode), (root / "tmp").stat().st_uid) == (0o1777, 7)
    assert stat.S_IMODE((root / "own").stat().st_mode) == 0o711
    assert stat.S_IMODE((root / "new/deep").stat().st_mode) == 0o755


async def test_hard_links_stay_one_file(store: ImageStore, made: Layout) -> None:
    root = await rootfs_of(store, made, archive(file("a/one", b"1"), hard_link("b/two", "./a/one")))
    assert (root / "a/one").stat().st_ino == (root / "b/two").stat().st_ino


async def test_layers_are_kept_once_for_all_images(store: ImageStore, made: Layout) -> None:
    base, mine, yours = (archive(file(name, name.encode())) for name in ("base", "mine", "yours"))
    one = await store.ensure(made.tag(made.image([base, mine]), "one"), None)
    two = await store.ensure(made.tag(made.image([base, yours]), "two"), None)
    assert sorted(tree(one.rootfs)) == ["base", "mine"]
    assert sorted(tree(two.rootfs)) == ["base", "yours"]
    assert (one.rootfs / "base").stat().st_ino == (two.rootfs / "base").stat().st_ino
    assert len(list((store.root / "layers").iterdir())) == 3


async def test_the_same_layer_may_come_twice_or_not_at_all(store: ImageStore, made: Layout) -> None:
    layer = archive(file("a", b"1"))
    assert sorted(tree(await rootfs_of(store, made, layer, layer))) == ["a"]
    nothing = await store.ensure(made.tag(made.image([]), "nothing"), None)
    assert tree(nothing.rootfs) == {}


# --- hostile ------------------------------------------------------------------------------------------
OUTSIDE = "climbed-out-of-a-layer"  # a name that no other test puts into the folder of all tests

HOSTILE: dict[str, tuple[list[Entry], str]] = {
    "a path with dots": ([file(f"../../../{OUTSIDE}", b"evil")], r"climbs out with '\.\.'"),
    "dots in the middle": ([folder("a"), file(f"a/../../{OUTSIDE}", b"evil")], "climbs out"),
    "through a link to the root": ([link("a", "/"), file(f"a/tmp/{OUTSIDE}", b"evil")], "is no folder"),
    "through a relative link": ([link("a", "../../.."), file(f"a/{OUTSIDE}", b"evil")], "is no folder"),
    "through a link in the middle": (
        [folder("d"), link("d/a", "/tmp"), file("d/a/b/c", b"evil")],
        "goes through 'a', which is no folder",
    ),
    "through a file": ([file("a", b"x"), file("a/b", b"evil")], "is no folder"),
    "a hard link outside": ([hard_link("a", "../../../../etc/passwd")], "climbs out"),
    "an absolute hard link": ([hard_link("a", "/etc/passwd")], "which is no file of this layer"),
    "a hard link through a link": ([link("e", "/etc"), hard_link("a", "e/passwd")], "is no folder"),
    "a hard link to a folder": ([folder("d"), hard_link("a", "d")], "no file of this layer"),
    "a hard link to the root": ([hard_link("a", "/")], "no file of this layer"),
    "a block device": ([entry("sda", tarfile.BLKTYPE, devmajor=8)], "'sda' is a device node"),
    "a character device": ([entry("mem", tarfile.CHRTYPE, devmajor=1, devminor=1)], "a device node"),
    "an overlay's own whiteout": ([entry("x", tarfile.CHRTYPE)], "a device node"),
    "a whiteout of what is above": ([file(".wh..")], "names nothing"),
    "a whiteout of the parent": ([file("a/.wh...")], "names nothing"),
    "an owner that is none": ([file("a", b"", uid=2**40)], "the owner of 'a'"),
    "a name too long": ([file("n" * 300, b"")], "is none, or is too long"),
    "a tree too deep": ([file("/".join("d" * 300), b"")], "is too long"),
    "a kind that nobody knows": ([entry("a", b"Q")], "of the unknown kind"),
    "a root that is a link": ([link(".", "/")], "its root is no folder"),
}


@pytest.mark.parametrize(("entries", "says"), HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_layer_is_refused_and_touches_nothing(
    store: ImageStore, made: Layout, tmp_path: Path, entries: list[Entry], says: str
) -> None:
    name = made.tag(made.image([archive(file("good", b"1"), *entries)]))
    before = {path for path in tmp_path.rglob("*") if store.root not in path.parents}
    with pytest.raises(ImageFailed, match=says) as caught:
        await store.ensure(name, None)
    assert caught.value.reason == Reason.IMAGE_CORRUPT
    assert {path for path in tmp_path.rglob("*") if store.root not in path.parents} - {store.root} == before
    assert not list(tmp_path.parent.glob(f"*{OUTSIDE}*"))
    assert not Path("/tmp", OUTSIDE).exists()
    for folder_name in ("layers", "unpacked", "partial", "records"):
        assert list((store.root / folder_name).iterdir()) == []


async def test_an_absolute_path_is_one_below_the_root(store: ImageStore, made: Layout) -> None:
    root = await rootfs_of(store, made, archive(file("/etc/passwd", b"mine")))
    assert (root / "etc/passwd").read_text() == "mine"


async def test_a_link_of_a_lower_layer_is_not_followed_by_an_upper_one(
    store: ImageStore, made: Layout, tmp_path: Path
) -> None:
    (tmp_path / OUTSIDE).mkdir()
    lower = archive(link("a", str(tmp_path / OUTSIDE)), link("b", str(tmp_path / OUTSIDE)))
    upper = archive(file("a/evil", b"x"), file("b/.wh.evil"), file("b/.wh..wh..opq"))
    (tmp_path / OUTSIDE / "evil").write_text("there before")
    root = await rootfs_of(store, made, lower, upper)
    assert (tmp_path / OUTSIDE / "evil").read_text() == "there before"
    assert list((tmp_path / OUTSIDE).iterdir()) == [tmp_path / OUTSIDE / "evil"]
    assert (root / "a/evil").read_text() == "x"


def raw_layer(made: Layout, body: bytes, diff_id: str | None = None) -> str:
    """An image whose layer's blob is exactly this."""
    blob = made.blob(body, LAYER)
    return made.tag(made.manifest([blob], [diff_id or digest_of(body)]))


def damaged_header() -> bytes:
    body = bytearray(archive(file("a", b"1"), file("b", b"2")))
    body[1024 + 150] ^= 0xFF  # the checksum of the second header
    return bytes(body)


def endless_pax() -> bytes:
    """A header that says to be two gigabytes long."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2 * 1024**3
    return info.tobuf(tarfile.USTAR_FORMAT) + b"\0" * 4096


def many_pax() -> bytes:
    """Headers before headers before headers."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 0
    return info.tobuf(tarfile.USTAR_FORMAT) * 50_000


DAMAGED = {
    "no archive": (b"\x01" * 2048, "its archive is damaged"),
    "a damaged header in the middle": (damaged_header(), "its archive is damaged"),
    "cut off": (archive(file("a", b"x" * 100_000))[:50_000], "ends in the middle of a file"),
    "cut off in gzip": (gzip.compress(archive(file("a", os.urandom(100_000))))[:50_000], "ends too early"),
    "rubbish behind gzip": (gzip.compress(archive(file("a"))) + b"rubbish", "something else follows"),
    "an endless header": (endless_pax(), "a header of its archive is 2,147,48"),
    "headers without end": (many_pax(), "its archive is damaged"),
}


@pytest.mark.parametrize(("body", "says"), DAMAGED.values(), ids=DAMAGED)
async def test_a_damaged_layer_is_refused(store: ImageStore, made: Layout, body: bytes, says: str) -> None:
    with pytest.raises(ImageFailed, match=says) as caught:
        await store.ensure(raw_layer(made, body), None)
    assert caught.value.reason == Reason.IMAGE_CORRUPT
    assert list((store.root / "layers").iterdir()) == []


async def test_gzip_in_several_pieces_is_read(store: ImageStore, made: Layout) -> None:
    tar = archive(file("a", os.urandom(300_000)))
    body = gzip.compress(tar[:100_000]) + gzip.compress(tar[100_000:]) + b"\0" * 512
    image = await store.ensure(raw_layer(made, body, digest_of(tar)), None)
    assert (image.rootfs / "a").stat().st_size == 300_000


async def test_content_that_is_not_what_the_config_says_is_refused(store: ImageStore, made: Layout) -> None:
    name = made.tag(made.image([archive(file("a"))], diff_ids=[digest_of(b"other")]))
    with pytest.raises(ImageFailed, match="does not match its digest"):
        await store.ensure(name, None)


async def test_a_bomb_is_stopped_by_its_size(tmp_path: Path, made: Layout) -> None:
    store = ImageStore(tmp_path / "images", ImageSettings(max_bytes=64 * 1024**2))
    name = made.tag(made.image([archive(file("zeros", bytes(200 * 1024**2)))]))
    with pytest.raises(ImageFailed, match="larger than 67,108,864 bytes, which is the limit"):
        await store.ensure(name, None)
    assert list((store.root / "partial").iterdir()) == []


async def test_a_bomb_is_stopped_by_its_ratio(store: ImageStore, made: Layout) -> None:
    piece = gzip.compress(bytes(64 * 1024**2), 9)
    header = entry("zeros", size=64 * 1024**2 * 40).tobuf(tarfile.GNU_FORMAT)
    name = raw_layer(made, gzip.compress(header) + piece * 40, digest_of(b""))
    with pytest.raises(ImageFailed, match="more than 200 times its size"):
        await store.ensure(name, None)


async def test_a_bomb_of_holes_is_stopped(tmp_path: Path, made: Layout) -> None:
    store = ImageStore(tmp_path / "images", ImageSettings(max_bytes=64 * 1024**2))
    sparse = entry("holes", size=1, pax_headers={
        "GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "holes",
        "GNU.sparse.size": str(10 * 1024**4), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,1",
    })  # fmt: skip
    with pytest.raises(ImageFailed, match="which is the limit"):
        await store.ensure(made.tag(made.image([archive((sparse, b"x"))])), None)


async def test_too_many_files_are_refused(tmp_path: Path, made: Layout) -> None:
    store = ImageStore(tmp_path / "images", ImageSettings(max_files=100))
    tar = archive(*(file(f"f{n}") for n in range(101)))
    with pytest.raises(ImageFailed, match="more than 100 files"):
        await store.ensure(made.tag(made.image([tar])), None)


# --- documents ----------------------------------------------------------------------------------------
DOCUMENTS = {
    "no JSON": b"this is no JSON {",
    "another shape": b'{"config": 3, "layers": "none"}',
    "deep": b'{"config":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "empty": b"",
}


@pytest.mark.parametrize("body", DOCUMENTS.values(), ids=DOCUMENTS)
async def test_a_manifest_that_does_not_read(store: ImageStore, made: Layout, body: bytes) -> None:
    with pytest.raises(ImageFailed) as caught:
        await store.ensure(made.tag(made.blob(body, "application/vnd.oci.image.manifest.v1+json")), None)
    assert caught.value.reason == Reason.IMAGE_CORRUPT


@pytest.mark.parametrize("body", DOCUMENTS.values(), ids=DOCUMENTS)
async def test_a_config_that_does_not_read(store: ImageStore, made: Layout, body: bytes) -> None:
    config = made.blob(body, "application/vnd.oci.image.config.v1+json")
    manifest = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    name = made.tag(made.blob(manifest, "application/vnd.oci.image.manifest.v1+json"))
    if body.startswith(b'{"config"'):  # what nobody asks for may have any shape
        body = b""
    with pytest.raises(ImageFailed) as caught:
        await store.ensure(name, None)
    assert caught.value.reason == Reason.IMAGE_CORRUPT


async def test_a_huge_document_is_not_read(store: ImageStore, made: Layout) -> None:
    descriptor = made.blob(b" " * (9 * 1024**2), "application/vnd.oci.image.manifest.v1+json")
    with pytest.raises(ImageFailed, match="no image needs that much"):
        await store.ensure(made.tag(descriptor), None)


async def test_an_index_in_an_index_in_an_index(store: ImageStore, made: Layout) -> None:
    descriptor = made.image([archive(file("a"))])
    for _ in range(10):
        body = json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode()
        descriptor = made.blob(body, "application/vnd.oci.image.index.v1+json")
    with pytest.raises(ImageFailed, match="nests its indexes too deep"):
        await store.ensure(made.tag(descriptor), None)


async def test_the_unpacking_process_cannot_write_elsewhere(tmp_path: Path) -> None:
    """Landlock holds it, where the kernel has that: the child tells, and this tries."""
    import asyncio
    import sys

    (tmp_path / "store").mkdir()
    program = (
        "import os, sys; from pathlib import Path; from towline.images.unpacking import sandbox\n"
        "held = sandbox.enter(Path(sys.argv[1]) / 'store', os.getppid())\n"
        "Path(sys.argv[1], 'store', 'in').write_text('x')\n"
        "try: Path(sys.argv[1], 'out').write_text('x'); print(held, 'written')\n"
        "except PermissionError: print(held, 'denied')\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, tmp_path, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert said in (b"True denied\n", b"False written\n")
    assert (tmp_path / "store/in").exists()


def test_the_tests_own_archives_are_read_by_tar() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(file("a", b"1"), link("b", "a")))) as tar:
        assert tar.getnames() == ["a", "b"]
