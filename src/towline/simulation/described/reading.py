"""Files that describe something for a simulation, read and checked as job files are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from towline.errors import InvalidDocument, Problem
from towline.model.document.load import MAX_FILE_BYTES, parse_text
from towline.model.document.reader import struct_reader
from towline.model.document.reading import Reading
from towline.model.names import kind

Described = TypeVar("Described", bound=Struct)
Check = Callable[[Reading, Any], None]


def read_described(path: Path, struct: type[Described], check: Check, example: str) -> Described:
    """A file's content as this Struct. Raises InvalidDocument with all problems and their lines.

    ``check`` notes what the fields' types do not say. ``example`` is for a file that is something else.
    """
    source = str(path)
    document = parse_text(_content(path), source)
    reading = Reading(source, document.lines)
    tree: object = document.tree
    if not isinstance(tree, dict):
        what = "is empty" if tree is None else f"is {kind(tree)}, not a mapping"
        raise InvalidDocument([Problem("", what, f"write {example}")], source)
    made: Described = struct_reader(struct)(reading, [tree], 0, None)
    check(reading, made)
    reading.finish()
    return made


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise InvalidDocument(
            [Problem("", f"cannot be read: {said}", "name a file that can")], str(path)
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise InvalidDocument([Problem("", "is over 5 MiB", "write equal nodes as one group")], str(path))
    return content
