"""The index beside an attempt's two output files: what came when, and how much was left out.

The file begins with a head (magic, then the bytes dropped of stdout and of stderr, kept in place);
after it stand entries of equal size in the order of arrival. An entry is written before the bytes
that it speaks of, so that a death in between leaves an entry too many, never bytes without a time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

STREAMS = ("stdout", "stderr")
INDEX = "index"

HEAD = struct.Struct("<8sQQ")
MAGIC = b"TOWLOG1\n"
_BODY = struct.Struct("<BBxxQQ")
_CRC = struct.Struct("<I")
ENTRY_BYTES = _CRC.size + _BODY.size

DATA = 0
MARKER = 1


class Entry(NamedTuple):
    """The bytes of ``stream`` (0 stdout, 1 stderr) from ``offset`` on came at ``at_ms`` (unix).

    ``kind`` is DATA, or MARKER where the bytes are Towline's own note of what it dropped.
    """

    stream: int
    kind: int
    offset: int
    at_ms: int


def pack(entry: Entry) -> bytes:
    body = _BODY.pack(*entry)
    return _CRC.pack(crc32(body)) + body


def unpack(data: bytes) -> Iterator[Entry]:
    """The sound entries of a block that begins at an entry; damaged ones and a torn end are left out."""
    for at in range(0, len(data) - ENTRY_BYTES + 1, ENTRY_BYTES):
        body = data[at + _CRC.size : at + ENTRY_BYTES]
        if _CRC.unpack_from(data, at)[0] == crc32(body):
            yield Entry(*_BODY.unpack(body))
