"""How a row's struct lies in the columns of its table: plain tuples, in the order of the columns.

Drivers take and give tuples; a page of rows costs a few microseconds a row this way. Decoding
checks the types, so a damaged row is found where it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from towline.core import rows

R = TypeVar("R", bound=Struct)

_encode_json = msgspec.json.Encoder().encode
_RENAMED = {"index": "idx"}


class Damaged(Exception):
    """A row that does not decode; the message says where and what."""


class Layout(Generic[R]):
    """The columns of a row in ``table``; ``first`` and ``fixed`` are columns that the struct does not
    have (its stream, its pool), which stand before and behind the struct's."""

    def __init__(
        self,
        row: type[R],
        table: str,
        key: Sequence[str],
        *,
        first: Sequence[str] = (),
        fixed: Sequence[str] = (),
        json: Sequence[str] = (),
        flags: Sequence[str] = (),
    ) -> None:
        self.row = row
        self.table = table
        self.key = tuple(key)
        self._fields = row.__struct_fields__
        self.read = tuple(_RENAMED.get(name, name) for name in self._fields)
        self.columns = (*first, *self.read, *fixed)
        self._first, self._fixed = len(first), len(fixed)
        self._flags = tuple(self._fields.index(name) for name in flags)
        types = {field.name: field.type for field in msgspec.structs.fields(row)}
        self._json = tuple(
            (self._fields.index(name), msgspec.json.Decoder(types[name]).decode) for name in json
        )

    def encode(self, many: Iterable[R], owner: str) -> list[tuple[Any, ...]]:
        """One tuple a row, in the order of ``columns``; ``owner`` (pool or stream) fills the columns
        that the struct does not have."""
        if not self._json and not self._first and not self._fixed:
            return [astuple(row) for row in many]
        return list(self._encode(many, owner))

    def _encode(self, many: Iterable[R], owner: str) -> Iterator[tuple[Any, ...]]:
        first, fixed = (owner,) * self._first, (owner,) * self._fixed
        places = [place + self._first for place, _ in self._json]
        for row in many:
            values = [*first, *astuple(row), *fixed]
            for place in places:
                values[place] = _encode_json(values[place])
            yield tuple(values)

    def decode(self, values: Sequence[Any]) -> R:
        """The row of what was selected in the order of ``read``. Raises Damaged."""
        try:
            cells = list(values)
            for place in self._flags:
                cells[place] = {0: False, 1: True}.get(cells[place], cells[place])
            for place, decode in self._json:
                cells[place] = decode(cells[place])
            return msgspec.convert(dict(zip(self._fields, cells, strict=True)), self.row)
        except (msgspec.MsgspecError, TypeError, UnicodeError) as error:
            key = " ".join(
                f"{name}={value!r}"
                for name, value in zip(self.read, values, strict=False)
                if name in self.key
            )
            raise Damaged(f"the row {key} of table {self.table} does not decode: {error}") from None


JOB = Layout(rows.JobRow, "job", ["id"], flags=["cancel_requested"])
SPEC = Layout(rows.SpecRow, "spec", ["job"], json=["spec"])
TASK = Layout(rows.TaskRow, "task", ["job", "task"], flags=["ready"])
ELEMENT = Layout(rows.ElementRow, "element", ["job", "task", "idx"])
RANGE = Layout(rows.RangeRow, "element_range", ["job", "task", "lo"])
ATTEMPT = Layout(rows.AttemptRow, "attempt", ["job", "task", "idx", "number"])
NODE = Layout(
    rows.NodeRow,
    "node",
    ["id"],
    fixed=["pool"],
    json=["labels", "runtimes", "gpus", "taints", "protects"],
)
QUEUE = Layout(rows.QueueRow, "queue", ["pool", "name"], first=["pool"], json=["guaranteed", "maximum"])
USAGE = Layout(rows.UsageRow, "usage", ["pool", "namespace"], first=["pool"])
DURATION = Layout(
    rows.DurationRow, "duration", ["pool", "namespace", "name", "task"], first=["pool"], json=["data"]
)
EVENT = Layout(rows.EventRow, "event", ["stream", "number"], first=["stream"], json=["data"])

WRITTEN: tuple[tuple[str, Layout[Any]], ...] = (
    ("jobs", JOB),
    ("specs", SPEC),
    ("tasks", TASK),
    ("elements", ELEMENT),
    ("ranges", RANGE),
    ("attempts", ATTEMPT),
    ("nodes", NODE),
    ("queues", QUEUE),
    ("usages", USAGE),
    ("durations", DURATION),
    ("events", EVENT),
)
"""Each list of ``Changes`` and how its rows lie, in the order in which a commit writes them."""
