"""Who a container's users are outside of it: the user namespace, and mounts that show owners by it.

Inside, ids go from 0 up; outside, these are the node's subordinate ids, which belong to nobody. The
image's files are shown through a mount that moves their owners up alike. In folders of the node (mounts,
inputs) the one user that the command starts as stands for the submitting user, whose files they are.
"""

from __future__ import annotations

import os
from contextlib import suppress

from msgspec import Struct

from towline.runtime.linux.trees import user_namespace

FIRST_ID = 15_259 << 16
"""Where a node's subordinate ids begin when nobody says otherwise: a multiple of 65,536, as is usual."""
COUNT = 1 << 16
_MAX_NAMESPACES = 64


class Ids(Struct, frozen=True, array_like=True):
    """``first`` is the id outside of a container's 0; ``count`` follow. ``owner_uid`` and ``owner_gid`` are
    the submitting user's."""

    first: int
    count: int
    owner_uid: int
    owner_gid: int

    def mappings(self) -> list[dict[str, int]]:
        """``linux.uidMappings`` and ``gidMappings`` of config.json."""
        return [{"containerID": 0, "hostID": self.first, "size": self.count}]

    def outside(self, inside: int) -> int:
        return self.first + inside

    def folder_lines(self, owner: int, inside: int) -> str:
        """uid_map of a folder's mount: an id on the disk, what it is shown as, how many follow. ``owner``'s
        files are shown as those of ``inside``; no id may stand twice."""
        first, end, outside = self.first, self.first + self.count, self.outside(inside)
        if first <= owner < end:
            return f"{first} {first} {self.count}\n"
        after = outside + 1
        parts = [(owner, outside, 1), (first, first, outside - first), (after, after, end - after)]
        return "".join(f"{on_disk} {shown} {count}\n" for on_disk, shown, count in parts if count > 0)


def mappings_around(inside: int, count: int) -> list[dict[str, int]]:
    """Of a container's ids in the namespace of an ordinary user (see ``rootless``), where 0 is the user and
    ``count`` subordinate ids follow: the user is the container's ``inside``, the others are the rest."""
    parts = [(0, 1, inside), (inside, 0, 1), (inside + 1, inside + 1, count - inside)]
    return [{"containerID": c, "hostID": h, "size": size} for c, h, size in parts if size > 0]


class Namespaces:
    """User namespaces by what they map; they live while this process does. Nothing runs in them: mounts
    take their mapping from one."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str], int] = {}

    def of_image(self, ids: Ids) -> int:
        """Shows id 0 on the disk as the container's 0, and so on. Raises OSError."""
        line = f"0 {ids.first} {ids.count}\n"
        return self._get(line, line)

    def of_folder(self, ids: Ids, uid: int, gid: int) -> int:
        """Shows the submitting user's files as those of the container's ``uid`` and ``gid``, the
        subordinate ids as they are, and all others as nobody's. Raises OSError."""
        return self._get(
            ids.folder_lines(ids.owner_uid, uid),
            ids.folder_lines(ids.owner_gid, gid),
        )

    def _get(self, uids: str, gids: str) -> int:
        found = self._made.get((uids, gids))
        if found is None:
            if len(self._made) >= _MAX_NAMESPACES:
                self.close()
            found = self._made[uids, gids] = user_namespace(uids, gids)
        return found

    def close(self) -> None:
        for descriptor in self._made.values():
            with suppress(OSError):
                os.close(descriptor)
        self._made.clear()
