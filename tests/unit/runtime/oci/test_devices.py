"""Device nodes of GPUs in a container: those that it was given, usable, and no others."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.container_host import Host

from towline.runtime.devices import device_entries
from towline.runtime.port import StartFailed

ZERO = (1, 5)


@pytest.fixture
def devices() -> Iterator[Path]:
    folder = Path("/dev") / f"tow-unit-{os.getpid()}"
    folder.mkdir()
    for at in range(2):
        os.mknod(folder / f"gpu{at}", stat.S_IFCHR, os.makedev(*ZERO))
        (folder / f"gpu{at}").chmod(0o666)
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.containers
def test_a_device_that_was_given_works_and_others_are_not_there(host: Host, devices: Path) -> None:
    look = f"ls {devices}; head -c 2 {devices}/gpu0 | od -An -tx1; echo x > {devices}/gpu0 && echo written"
    result = host.run("sh", "-c", look, devices=(f"{devices}/gpu0",))
    assert (result.out.splitlines(), result.err) == (["gpu0", " 00 00", "written"], "")


@pytest.mark.containers
def test_a_user_of_the_image_may_use_it_too(host: Host, devices: Path) -> None:
    look = f"id -u; head -c 2 {devices}/gpu1 | od -An -tx1"
    result = host.run("sh", "-c", look, image={"user": "1000"}, devices=(f"{devices}/gpu1",))
    assert (result.out.splitlines(), result.err) == (["1000", " 00 00"], "")


def test_what_is_no_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartFailed, match="is no device"):
        device_entries([str(tmp_path / "file")])
    with pytest.raises(StartFailed, match="No such file"):
        device_entries([str(tmp_path / "nothing")])


def test_only_this_device_is_allowed() -> None:
    entries = device_entries(["/dev/null"])
    assert entries.rules == [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}]
    assert entries.nodes[0]["path"] == "/dev/null"
