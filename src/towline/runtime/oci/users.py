"""Who a container runs as: an image's ``User`` looked up in the image's own /etc/passwd and /etc/group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from towline.runtime.paths import read_in_root
from towline.runtime.port import StartFailed

_MAX_FILE_BYTES = 4 * 1024**2
_MAX_ID = 2**32 - 2


class User(NamedTuple):
    """``groups`` are the supplementary ones; ``home`` is None where the image does not name one."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str | None = None


class _Account(NamedTuple):
    name: str
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: str
    gid: int
    members: tuple[str, ...]


def find_user(text: str | None, rootfs: str, field: str | None = None) -> User:
    """What ``USER``, ``UID``, ``USER:GROUP`` or ``UID:GID`` means in the image. Raises StartFailed, naming
    the task's ``field`` that asked for it (None: the image did).

    As in Docker: a number needs no entry, group 0 is taken where none is known, and supplementary
    groups are those that /etc/group gives the user where no group is named.
    """
    name, _, group_name = (text or "0").partition(":")
    account = next((a for a in _accounts(rootfs) if name in (a.name, str(a.uid))), None)
    if account is None and not name.isdecimal():
        raise StartFailed(_unknown("user", name, "passwd", field))
    uid = account.uid if account is not None else int(name)
    gid = account.gid if account is not None else 0
    groups: tuple[int, ...] = ()
    if group_name:
        gid = _find_group(group_name, rootfs, field)
    elif account is not None:
        groups = tuple(sorted({g.gid for g in _groups(rootfs) if account.name in g.members} - {gid}))
    if uid > _MAX_ID or gid > _MAX_ID:
        raise StartFailed(f"The user {text!r} is too high a number: correct {field or 'USER in the image'}.")
    return User(uid, gid, groups, account.home or None if account is not None else None)


def _find_group(name: str, rootfs: str, field: str | None) -> int:
    for group in _groups(rootfs):
        if group.name == name:
            return group.gid
    if name.isdecimal():
        return int(name)
    raise StartFailed(_unknown("group", name, "group", field))


def _unknown(kind: str, name: str, file: str, field: str | None) -> str:
    if field is None:
        return f"The image's {kind} {name!r} is not in its /etc/{file}: correct USER in the image."
    return (
        f"The image has no {kind} {name!r} in its /etc/{file}: correct {field}, or give a number (it needs "
        f"no entry there)."
    )


def _accounts(rootfs: str) -> Iterator[_Account]:
    for fields in _lines(rootfs, "etc/passwd", 6):
        if fields[2].isdecimal() and fields[3].isdecimal():
            yield _Account(fields[0], int(fields[2]), int(fields[3]), fields[5])


def _groups(rootfs: str) -> Iterator[_Group]:
    for fields in _lines(rootfs, "etc/group", 4):
        if fields[2].isdecimal():
            yield _Group(fields[0], int(fields[2]), tuple(fields[3].split(",")))


def _lines(rootfs: str, path: str, count: int) -> Iterator[list[str]]:
    content = read_in_root(rootfs, path, _MAX_FILE_BYTES) or b""
    for line in content.decode(errors="replace").splitlines():
        fields = line.strip().split(":")
        if len(fields) >= count:
            yield fields
