"""Paths of users and images never lead where they should not; an image's user is found in the image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from towline.runtime.oci.users import User, find_user
from towline.runtime.paths import open_unchanged, read_in_root, resolve_mount
from towline.runtime.port import StartFailed

PASSWD = """root:x:0:0:root:/root:/bin/sh
app:x:1000:50:app:/home/app:/bin/sh
broken line
other:x:notanumber:1:::
homeless:x:1001:1001:::
"""
GROUP = "root:x:0:\napp:x:50:\nvideo:x:44:app,other\naudio:x:29:app\n"


@pytest.fixture
def rootfs(tmp_path: Path) -> str:
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    return str(root)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        (None, User(0, 0, (), "/root")),
        ("", User(0, 0, (), "/root")),
        ("app", User(1000, 50, (29, 44), "/home/app")),
        ("1000", User(1000, 50, (29, 44), "/home/app")),
        ("app:video", User(1000, 44, (), "/home/app")),
        ("app:1234", User(1000, 1234, (), "/home/app")),
        ("4242", User(4242, 0, (), None)),
        ("4242:4343", User(4242, 4343, (), None)),
        ("homeless", User(1001, 1001, (), None)),
    ],
)
def test_a_user_is_found_as_docker_finds_it(rootfs: str, text: str | None, user: User):
    assert find_user(text, rootfs) == user


@pytest.mark.parametrize("text", ["nobody", "app:nogroup", "other", "4294967295", "-1", "app:4294967295"])
def test_a_user_that_the_image_does_not_know(rootfs: str, text: str):
    with pytest.raises(StartFailed, match="correct USER in the image"):
        find_user(text, rootfs)


def test_an_image_without_accounts_has_numbers_only(tmp_path: Path):
    assert find_user("7:8", str(tmp_path)) == User(7, 8)
    with pytest.raises(StartFailed):
        find_user("app", str(tmp_path))


def test_a_file_of_an_image_is_not_read_through_a_symlink_out_of_it(rootfs: str, tmp_path: Path):
    (tmp_path / "secret").write_text("app:x:666:666:::")
    passwd = Path(rootfs, "etc/passwd")
    passwd.unlink()
    passwd.symlink_to(tmp_path / "secret")
    assert read_in_root(rootfs, "etc/passwd", 1000) is None
    passwd.unlink()
    passwd.symlink_to("../../../../etc/other")
    Path(rootfs, "etc/other").write_text("inside")
    assert read_in_root(rootfs, "etc/passwd", 1000) == b"inside"


def test_only_regular_files_of_some_size_are_read(rootfs: str):
    os.mkfifo(Path(rootfs, "fifo"))
    assert read_in_root(rootfs, "fifo", 1000) is None
    assert read_in_root(rootfs, "etc", 1000) is None
    assert read_in_root(rootfs, "etc/passwd", 10) is None


def test_a_mount_below_an_allowed_folder(tmp_path: Path):
    (tmp_path / "data/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    assert resolve_mount(f"{tmp_path}/data/deep", [str(tmp_path)]) == f"{tmp_path}/data/deep"
    assert resolve_mount(f"{tmp_path}/link/deep", [str(tmp_path)]) == f"{tmp_path}/data/deep"
    assert resolve_mount(f"{tmp_path}", [f"{tmp_path}/"]) == f"{tmp_path}"


def test_a_mount_outside_is_refused_and_named(tmp_path: Path):
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed-not").mkdir()
    (tmp_path / "allowed/out").symlink_to("/etc")
    for source, says in (
        (f"{tmp_path}/allowed/out", r"it leads to /etc"),
        (f"{tmp_path}/allowed/out/..", r"it leads to /"),
        (f"{tmp_path}/allowed-not", "outside of the allowed folders"),
        ("/", "outside of the allowed folders"),
    ):
        with pytest.raises(StartFailed, match=says):
            resolve_mount(source, [f"{tmp_path}/allowed"])
    with pytest.raises(StartFailed, match="allows no mounts"):
        resolve_mount(str(tmp_path), [])


def test_a_mount_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(StartFailed, match=r"there is no .*/none on this node. Create it"):
        resolve_mount(f"{tmp_path}/none/deeper", [str(tmp_path)])
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StartFailed, match="cannot be read"):
        resolve_mount(f"{tmp_path}/loop", [str(tmp_path)])


def test_a_symlink_anywhere_in_a_resolved_path_is_a_change(tmp_path: Path):
    (tmp_path / "a/b").mkdir(parents=True)
    os.close(open_unchanged(f"{tmp_path}/a/b"))
    (tmp_path / "a").rename(tmp_path / "moved")
    (tmp_path / "a").symlink_to("moved")
    with pytest.raises(OSError, match="symbolic links"):
        open_unchanged(f"{tmp_path}/a/b")
