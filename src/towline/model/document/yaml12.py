"""Texts of job files into plain trees: YAML 1.2's core schema over PyYAML's C parser.

PyYAML itself speaks YAML 1.1, where ``on`` is true, ``NO`` is false and ``1:30`` is 90; here they
are texts. Also unlike it: a key that stands twice is refused, the line of every value is known, and
so is how a number was written (``1.0`` and ``08`` stay so where a text is wanted).

The tree is built from the parser's events in one loop, without recursion, with bounds on depth and
on the number of values after aliases are expanded.
"""

from __future__ import annotations

import math
import re
from typing import Any, cast

import yaml

from towline.errors import Problem
from towline.model.document.lines import Holder, Key, Lines, path_text
from towline.model.names import shown

MAX_DEPTH = 64
MAX_VALUES = 1_000_000

Tree = Any
"""dict, list, str, int, float, bool or None, as JSON has them."""

_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,100}\Z")
_OCTAL = re.compile(r"0o[0-7]{1,100}\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,100}\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"([-+]?)\.(?:inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_PLAIN_START = frozenset("0123456789+-.~nNtTfF")
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")
_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null"))
_SHAPE_TAGS = ("!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_QUOTE_REMEDY = "put the text in quotes"
_SYNTAX_REMEDY = "look at this line and the one before it: indentation, quotes, brackets"


def resolve_plain(text: str) -> str | int | float | bool | None:
    """What a scalar without quotes stands for, by YAML 1.2's core schema."""
    if text and text[0] not in _PLAIN_START:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.match(text):
        return int(text)
    if _OCTAL.match(text):
        return int(text[2:], 8)
    if _HEX.match(text):
        return int(text[2:], 16)
    if _FLOAT.match(text):
        return float(text)
    special = _SPECIAL.match(text)
    if special is None:
        return text
    return math.nan if special[2] else float(f"{special[1]}inf")


class Refused(Exception):
    """The text as a whole cannot be read."""

    def __init__(self, message: str, remedy: str = "", line: int | None = None) -> None:
        self.problem = Problem("", message, remedy, line)
        super().__init__(message)


def _too_deep(line: int | None) -> Refused:
    return Refused(f"is nested more than {MAX_DEPTH} levels deep", "make it flatter", line)


def _tag_remedy(tag: str, text: str) -> str:
    """``disk: != hdd`` is a tag to YAML; what is meant is a text."""
    return (
        f'quote it: "{tag} {text}"'
        if tag.startswith("!=") and len(text) < 60 and text.isprintable()
        else "leave the tag out"
    )


class _Open:
    """A list or mapping whose end has not come yet. ``key`` is where its newest value stands."""

    __slots__ = ("anchor", "holder", "key", "line", "wants_key")

    def __init__(self, holder: Holder, anchor: str | None) -> None:
        self.holder = holder
        self.anchor = anchor
        self.key: Key = -1
        self.line = 0
        self.wants_key = isinstance(holder, dict)


class _Builder:
    """Events in, one tree out. ``problems`` are the keys that stand twice."""

    def __init__(self) -> None:
        self.lines = Lines()
        self.problems: list[Problem] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Tree, str | None]] = {}
        self._values = 0
        self._has_root = False

    def feed(self, event: Any) -> None:
        """Take one event. Raises Refused."""
        kind = cast("type[object]", type(event))
        if kind is yaml.ScalarEvent:
            self._scalar(event)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            self._begin(event, {} if kind is yaml.MappingStartEvent else [])
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._end()
        elif kind is yaml.AliasEvent:
            self._alias(event.anchor, event.start_mark.line + 1)
        elif kind is yaml.DocumentStartEvent and self._has_root:
            line = event.start_mark.line + 1
            raise Refused("a second document begins here", "write each job into a file of its own", line)

    def _scalar(self, event: Any) -> None:
        text: str = event.value
        tag: str | None = event.tag
        line: int = event.start_mark.line + 1
        if tag is None:
            plain: bool = event.implicit[0]
        elif tag in _TEXT_TAGS or tag in _PLAIN_TAGS:
            plain = tag in _PLAIN_TAGS
        else:
            raise Refused(f"the tag {shown(tag)} is not known", _tag_remedy(tag, text), line)
        value = resolve_plain(text) if plain else text
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, text)
        self._put(value, text, line)

    def _begin(self, event: Any, holder: Holder) -> None:
        line: int = event.start_mark.line + 1
        if event.tag is not None and event.tag not in _SHAPE_TAGS:
            raise Refused(f"the tag {shown(event.tag)} is not known", "leave the tag out", line)
        if len(self._open) == MAX_DEPTH:
            raise _too_deep(line)
        self._put(holder, None, line)
        self._open.append(_Open(holder, event.anchor))

    def _end(self) -> None:
        ended = self._open.pop()
        if ended.anchor is not None:
            self._anchors[ended.anchor] = (ended.holder, None)

    def _alias(self, anchor: str, line: int) -> None:
        if anchor not in self._anchors:
            raise Refused(f"*{anchor} refers to nothing before it", f"mark a value with &{anchor}", line)
        value, text = self._anchors[anchor]
        depth = len(self._open)
        self._put(self._copy(value, line, depth) if text is None else value, text, line)

    def _copy(self, holder: Holder, line: int, depth: int) -> Holder:
        """A copy, since what is read as text is changed in place and may be read otherwise elsewhere."""
        if depth >= MAX_DEPTH:
            raise _too_deep(line)
        copy: Holder = {} if isinstance(holder, dict) else [None] * len(holder)
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, value in items:
            self._count(line)
            nested = isinstance(value, dict | list)
            copy[key] = self._copy(cast("Holder", value), line, depth + 1) if nested else value  # type: ignore[index]
            self.lines.place(copy, key, line, self.lines.written(holder, key))
        return copy

    def _count(self, line: int) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise Refused(
                f"has over {MAX_VALUES:,} values once its aliases are written out", "use fewer aliases", line
            )

    def _put(self, value: Tree, text: str | None, line: int) -> None:
        """Give a value to what is open; ``text`` is a scalar's source, None for lists and mappings."""
        self._count(line)
        if not self._open:
            self.lines.root, self._has_root = value, True
            return
        top = self._open[-1]
        holder = top.holder
        if top.wants_key:
            if text is None:
                raise Refused("a list or mapping cannot be a key", "quote it if a text is meant", line)
            top.key, top.line, top.wants_key = text, line, False
            return
        if isinstance(holder, list):
            top.key, top.line = len(holder), line
            holder.append(value)
        else:
            top.wants_key = True
            key = cast("str", top.key)
            if key in holder:
                self._twice(top.line)
                return
            holder[key] = value
        self.lines.place(holder, top.key, top.line, None if text is value else text)

    def _twice(self, line: int) -> None:
        keys = [each.key for each in self._open]
        first = self.lines.line(keys)
        self.problems.append(
            Problem(path_text(keys), f"stands twice, first in line {first}", "keep one of them", line)
        )


def parse_yaml(content: bytes) -> tuple[Tree, Lines, list[Problem]]:
    """The tree of one document in UTF-8, its lines, and the keys in it that stand twice.

    Raises Refused where there is no such tree.
    """
    builder = _Builder()
    parser: Any = yaml.CSafeLoader(content)
    try:
        while parser.check_event():
            builder.feed(parser.get_event())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        line = mark.line + 1 if mark is not None else None
        if "maximum nesting depth" in what:  # the parser's own bound, met while it looks ahead
            raise _too_deep(line) from None
        if mark is not None and _indented_by_tab(content, mark.line):
            raise Refused("has a tab where the line is indented", "indent with spaces", line) from None
        remedy = _QUOTE_REMEDY if "block scalar" in what else _SYNTAX_REMEDY
        raise Refused(f"is not YAML: {what}", remedy, line) from None
    except yaml.YAMLError as error:
        raise Refused(f"is not YAML: {_reader_error(error)}", _SYNTAX_REMEDY) from None
    finally:
        parser.dispose()
    return builder.lines.root, builder.lines, builder.problems


def _indented_by_tab(content: bytes, line: int) -> bool:
    found = content.split(b"\n")[line : line + 1]
    return any(b"\t" in one[: len(one) - len(one.lstrip())] for one in found)


def _reader_error(error: yaml.YAMLError) -> str:
    reason = getattr(error, "reason", "it cannot be read")
    position = getattr(error, "position", None)
    return reason if position is None else f"{reason}, at byte {position}"
