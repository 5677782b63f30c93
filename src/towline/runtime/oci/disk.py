"""A file system of its own for what one container writes, so that its disk has an end: a file, made a
block device by the kernel's loop driver, and ext4 on it.

An empty file system of each size is made once (by the agent, which may take its time) and copied for each
container, which takes about a millisecond: it is nearly all holes. Its mount is let go as soon as the
container's overlay holds it, so that file system and device go with that, whoever dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from towline.errors import NO_ROOM
from towline.runtime.linux.mounting import mount
from towline.runtime.linux.trees import detach
from towline.runtime.port import StartFailed

_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_AUTOCLEAR = 4
_INFO = struct.Struct("=QQQQQIIII64s64s32s16s")  # struct loop_info64
_CONFIG_BYTES = 304
_SECTOR_BYTES = 512  # at most a block of the file system, which are small in small ones
_NO_ATIME, _NO_SUID, _NO_DEV = 1024, 2, 4
_TRIES = 20
LEAST_BYTES = 8 << 20
"""Less than this is rounded up: the file system's own tables need some."""
_FULL_BYTES = 128 << 10
_HELD_BACK_BYTES = 20 << 20
_COPY_BYTES = 1 << 20
_MKFS_TIMEOUT_S = 60
_TRIAL_BYTES = 16 << 20


class DiskUnavailable(Exception):
    """Why there can be no such file system here, a sentence with a remedy."""


def template(folder: Path, size_bytes: int) -> str:
    """The path of an empty file system of this size, made in ``folder`` if it is not there. May take some
    100 ms. Raises DiskUnavailable."""
    size_bytes = -(-max(size_bytes, LEAST_BYTES) // 4096) * 4096
    path = folder / f"{size_bytes}.ext4"
    if path.exists():
        return str(path)
    if shutil.which("mkfs.ext4") is None:
        raise DiskUnavailable("mkfs.ext4, which makes file systems, is missing: apt-get install e2fsprogs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix="new-", delete=False) as fresh:
            fresh.truncate(size_bytes)
        _format(fresh.name)
        os.rename(fresh.name, path)
    except OSError as error:
        raise DiskUnavailable(f"a file system cannot be made in {folder}: {error.strerror}") from error
    return str(path)


def _format(path: str) -> None:
    """Nothing in it outlives the container: no journal, nothing kept for root, tables written when used."""
    argv = ["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode,uninit_bg"]
    argv += ["-E", "lazy_itable_init=1,nodiscard", path]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_MKFS_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise DiskUnavailable("mkfs.ext4 takes too long here: look at this node's disk") from None
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise DiskUnavailable(f"mkfs.ext4 fails and says: {said[:200]}")


@contextmanager
def mounted(image: str, directory: str) -> Iterator[str]:
    """Copy the file system ``image`` into ``directory`` and mount it there while this context lasts; what
    is mounted on it meanwhile keeps it. Gives its folder. Raises StartFailed."""
    copy, place = f"{directory}/disk.ext4", f"{directory}/disk"
    try:
        _copy(image, copy)
        os.mkdir(place, 0o700)
        _mount(copy, place)
    except OSError as error:
        raise StartFailed(
            f"The disk that resources.disk asks for cannot be made: {error.strerror}. tow doctor tells if "
            f"this machine can.",
            "disk_full" if error.errno in NO_ROOM else "start_failed",
        ) from error
    try:
        yield place
    finally:
        detach(place)


def remove(directory: str) -> None:
    """The file, the container being gone. Raises OSError."""
    detach(f"{directory}/disk")
    with suppress(FileNotFoundError):
        os.rmdir(f"{directory}/disk")
    with suppress(FileNotFoundError):
        os.unlink(f"{directory}/disk.ext4")


def is_full(root: str) -> bool:
    """Whether next to nothing more could be written to the file system that a root is on: ext4 holds back
    some for its own tables, and refuses before it shows no space."""
    try:
        there = os.statvfs(root)
    except OSError:
        return False
    held_back_bytes = min(there.f_blocks * there.f_frsize // 20, _HELD_BACK_BYTES)
    return there.f_bavail * there.f_frsize < _FULL_BYTES + held_back_bytes or there.f_favail == 0


def disk_problem(folder: Path) -> str | None:
    """Why no such disk can be given here, found by making one below ``folder``; None if it can."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="disk-") as trial:
        try:
            image = template(Path(trial, "images"), _TRIAL_BYTES)
            with mounted(image, trial) as place:
                Path(place, "file").write_bytes(b"x" * 4096)
            remove(trial)
        except DiskUnavailable as error:
            return str(error)
        except (StartFailed, OSError) as error:
            why = error.__cause__ or error
            what = why.strerror if isinstance(why, OSError) else str(error)
            return (
                f"no block device can be made of a file here ({what}): give this machine the loop driver "
                f"(modprobe loop), and a container /dev/loop-control"
            )
    return None


def _copy(image: str, target: str) -> None:
    """The parts of a file that are no holes."""
    with open(image, "rb") as source, open(target, "xb") as copy:
        size = os.fstat(source.fileno()).st_size
        os.truncate(copy.fileno(), size)
        at = 0
        while True:
            try:
                at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only holes follow
                    return
                raise
            end = os.lseek(source.fileno(), at, os.SEEK_HOLE)
            while at < end:
                data = os.pread(source.fileno(), min(_COPY_BYTES, end - at), at)
                at += os.pwrite(copy.fileno(), data, at)


def _mount(image: str, place: str) -> None:
    """The device is freed by the kernel when nobody uses it any more."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        device = _attach(backing)
    finally:
        os.close(backing)
    try:
        path = f"/proc/self/fd/{device}"
        flags = _NO_ATIME | _NO_SUID | _NO_DEV
        mount(path, place, "ext4", flags, "noload")
    finally:
        os.close(device)


def _attach(backing: int) -> int:
    """A descriptor of a loop device on the file; others may take the free one first. Raises OSError."""
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, b"", b"", b"", b"")
    config = struct.pack("=II", backing, _SECTOR_BYTES) + info
    for _ in range(_TRIES):
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
        finally:
            os.close(control)
        device = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, config.ljust(_CONFIG_BYTES, b"\0"))
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:
                raise
            continue
        return device
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "/dev/loop-control")
