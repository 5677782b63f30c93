"""A segment file: frames one behind another, each of them whole by its checksum, or the torn end."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from zlib import crc32

import msgspec
from msgspec import Struct

_HEAD = struct.Struct("<4sII")
_MAGIC = b"TLF1"

Time = tuple[int, int, int]
"""(offset, unix ms, kind), as an Entry of logs/entries.py without its stream."""


class Frame(Struct, frozen=True, array_like=True):
    """Bytes of a stream (0 stdout, 1 stderr) of an attempt. ``end``: nothing follows in the stream."""

    attempt: str
    stream: int
    offset: int
    times: tuple[Time, ...]
    end: bool
    data: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Frame)


def pack(frame: Frame) -> bytes:
    body = _encoder.encode(frame)
    return _HEAD.pack(_MAGIC, len(body), crc32(body)) + body


def unpack(data: bytes | memoryview) -> Frame | None:
    """The frame that begins there; None where none does."""
    if len(data) < _HEAD.size:
        return None
    magic, length, crc = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size : _HEAD.size + length]
    if magic != _MAGIC or len(body) < length or crc32(body) != crc:
        return None
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError:
        return None


def scan(data: bytes) -> Iterator[tuple[int, int, Frame]]:
    """(position, length, frame) of every frame of a segment up to the first that is not whole: behind it
    nothing was acknowledged."""
    position, view = 0, memoryview(data)
    while len(data) - position >= _HEAD.size:
        length = _HEAD.size + _HEAD.unpack_from(data, position)[1]
        frame = unpack(view[position : position + length])
        if frame is None:
            return
        yield position, length, frame
        position += length
