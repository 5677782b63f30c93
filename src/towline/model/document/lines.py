"""Where in a file the values of its tree stand, and how they were written there.

Kept beside the tree, by the identity of its lists and mappings, so that the tree stays plain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from towline.model.names import key_shown

Key = str | int
Holder = dict[str, Any] | list[Any]


class Where(NamedTuple):
    """A field's path, linked from its end, so that going one level down costs one small tuple."""

    parent: Where | None
    key: Key

    @property
    def keys(self) -> list[Key]:
        keys: list[Key] = []
        at: Where | None = self
        while at is not None:
            keys.append(at.key)
            at = at.parent
        return keys[::-1]

    def __str__(self) -> str:
        return path_text(self.keys)


def path_text(keys: Sequence[Key]) -> str:
    """``tasks.split.command[2]``; keys that are no plain names are quoted."""
    text = ""
    for key in keys:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + key_shown(key)
    return text


class Lines:
    """The line of each key and list item (1-based), and the source of scalars that are no texts."""

    def __init__(self) -> None:
        self.root: Any = None
        self._lines: dict[int, dict[Key, int]] = {}
        self._written: dict[tuple[int, Key], str] = {}

    def place(self, holder: Holder, key: Key, line: int, written: str | None = None) -> None:
        """Remember one value. The tree that ``holder`` is part of has to be kept as ``root``."""
        lines = self._lines.get(id(holder))
        if lines is None:
            lines = self._lines[id(holder)] = {}
        lines[key] = line
        if written is not None:
            self._written[id(holder), key] = written

    def written(self, holder: Holder, key: Key) -> str | None:
        """How a number, true, false or null stands in the file."""
        return self._written.get((id(holder), key))

    def line(self, keys: Sequence[Key]) -> int | None:
        """The line of a path; where it does not exist, of the last part of it that does."""
        holder, line = self.root, None
        for key in keys:
            line = self._lines.get(id(holder), {}).get(key, line)
            try:
                holder = holder[key]
            except (KeyError, IndexError, TypeError):
                break
        return line
