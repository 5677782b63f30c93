"""Pieces of an attempt's output, as a server asks for them."""

from __future__ import annotations

import os
import re

from towline import logs
from towline.wire import messages as wire

MAX_READ_BYTES = 1024**2
_ATTEMPT = re.compile(r"[A-Za-z0-9-]{1,200}\Z")


def read_log(order: wire.ReadLog, output_dir: str, live: bool) -> wire.LogChunk:
    """A piece of an attempt's output. ``live`` was asked before the read: more may follow if it holds."""
    directory = os.path.join(output_dir, order.attempt)
    offset, error = order.offset, None
    data: bytes = b""
    index: tuple[tuple[int, int], ...] = ()
    end = True
    if not _ATTEMPT.match(order.attempt):
        error = f"{order.attempt[:200]!r} is no attempt's id"
    else:
        try:
            data, index, end = logs.read(directory, order.stream, offset, min(order.limit, MAX_READ_BYTES))
            if offset < 0:
                offset = index[0][0] if index else logs.size(directory, order.stream)
        except (OSError, ValueError) as problem:
            error = str(problem)
    return wire.LogChunk(
        request=order.request, offset=offset, data=data, index=index, end=end and not live, error=error
    )
