"""How a test gives an agent its join link, as ``tow agent`` does."""

from __future__ import annotations

import os


def readable(link: str) -> int:
    """A descriptor to read it from, for ``--join-from``; to be closed once the agent has it."""
    reader, writer = os.pipe()
    os.write(writer, link.encode())
    os.close(writer)
    return reader
