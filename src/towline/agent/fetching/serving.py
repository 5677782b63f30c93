"""Answers to the server's calls for artifacts, a few at a time, each in a thread of its own."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from towline.agent.fetching import tree
from towline.beside import Beside
from towline.wire.artifacts import PAGE_ENTRIES, PIECE_BYTES, ArtifactsAnswer, ArtifactsCall

AT_ONCE = 4
"""So many pieces are read at a time: they are what takes memory."""
_JOB = re.compile(r"[A-Za-z0-9]{1,100}\Z")


class ArtifactsServing:
    """Of the folders that agent/artifacts.py keeps below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._answers = Beside()

    def answer(self, call: ArtifactsCall, say: Callable[[ArtifactsAnswer], None]) -> None:
        """Answer in a task of its own; the event loop waits for no disk."""
        self._answers.start(self._answer(call, say))

    async def _answer(self, call: ArtifactsCall, say: Callable[[ArtifactsAnswer], None]) -> None:
        async with self._places:
            say(await asyncio.to_thread(answer_of, self._root, call))


def answer_of(root: str, call: ArtifactsCall) -> ArtifactsAnswer:
    """Never raises: what is wrong is told in the answer."""
    request = call.request
    try:
        folder = _folder(root, call)
        if call.path is None:
            found, following = tree.entries(folder, call.after, PAGE_ENTRIES)
            return ArtifactsAnswer(request=request, entries=tuple(found), following=following)
        limit = min(max(call.limit, 0), PIECE_BYTES)
        data, size, version = tree.read(folder, call.path, max(call.offset, 0), limit)
        digest = hashlib.sha256(data).digest()
        return ArtifactsAnswer(request=request, data=data, size_bytes=size, digest=digest, version=version)
    except FileNotFoundError:
        if call.path is None:
            return ArtifactsAnswer(request=request)  # nobody's empty folder is kept
        return ArtifactsAnswer(request=request, error=f"There is no file {call.path!r}.", kind="not_found")
    except ValueError as error:
        return ArtifactsAnswer(request=request, error=f"{error}.", kind="refused")
    except OSError as error:
        what = f"{call.path or 'TOW_OUT'!r} cannot be read on the node: {error.strerror}."
        return ArtifactsAnswer(request=request, error=what, kind="refused")


def _folder(root: str, call: ArtifactsCall) -> str:
    if not _JOB.match(call.job):
        raise ValueError(f"{call.job[:200]!r} is no job's id")
    if call.attempt is None:
        return f"{root}/{call.job}/{call.task}/{call.index}"
    return f"{root}/{call.job}/{call.task}.attempts/{call.index}.{call.attempt}"
