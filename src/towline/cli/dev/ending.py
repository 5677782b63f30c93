"""The end of a cluster on this machine, by whoever ends it: itself, or the next start after a SIGKILL."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from towline.cli.dev.network import NETWORK, remove_network
from towline.cli.dev.remains import kill_all, remove_cgroups, unmount_below
from towline.client import Client
from towline.client.cluster.contexts import Contexts, contexts_file
from towline.errors import OperatorError, TowlineError

SERVER = "s"
SOCKET = "tow.sock"
MADE = "made.json"
JOBS_END_S = 15.0
KILLED_S = 20.0
_LOOK_S = 0.1
_UNFINISHED = ("running", "quarantined")


class Made(Struct, kw_only=True):
    """What of a cluster lies outside of its folder: the context of this user that has this token."""

    context: str
    token: str


async def end_cluster(folder: Path, hurry: asyncio.Event) -> None:
    """End what runs for the cluster in ``folder``, and take away all that was made for it. Its jobs are
    cancelled first, so that nodes clean up after them; that is waited for until ``hurry`` is set, and
    JOBS_END_S at most. Raises OperatorError for what does not end."""
    if not folder.is_dir():  # noqa: ASYNC240 - a local folder
        return
    socket = folder / SERVER / SOCKET
    if socket.exists():
        ending, hurrying = asyncio.create_task(_end_jobs(socket)), asyncio.create_task(hurry.wait())
        await asyncio.wait([ending, hurrying], timeout=JOBS_END_S, return_when=asyncio.FIRST_COMPLETED)
        for task in (ending, hurrying):
            task.cancel()
        (found, _) = await asyncio.gather(ending, hurrying, return_exceptions=True)
        # Of a server that is gone or slow: what runs is killed.
        if isinstance(found, Exception) and not isinstance(found, TowlineError):
            raise found
    await asyncio.to_thread(_remove, folder)


async def _end_jobs(socket: Path) -> None:
    async with Client(socket, patience_s=0) as client:
        for state in _UNFINISHED:
            cursor: str | None = None
            while True:
                page = await client.jobs(limit=200, state=state, cursor=cursor)
                for view in page.jobs:
                    await (await client.job(view.id)).cancel(kill=True)
                cursor = page.next_cursor
                if cursor is None:
                    break
        while any(node.active for node in await client.nodes()):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(_LOOK_S)


def _remove(folder: Path) -> None:
    homes = [path for path in folder.iterdir() if path.is_dir()]
    deadline = time.monotonic() + KILLED_S
    left = [pid for home in homes for pid in kill_all(home, max(0.0, deadline - time.monotonic()))]
    unmount_below(folder)
    for home in homes:
        remove_cgroups(home)
    remove_network(folder / NETWORK)
    _forget_context(folder / MADE)
    if left:
        raise OperatorError(f"These processes do not end: {left}. Their files stay in {folder}.")
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise OperatorError(f"{folder} cannot be removed: remove it by hand.")


def _forget_context(file: Path) -> None:
    """Unless another cluster has that name by now."""
    try:
        made = msgspec.json.decode(file.read_bytes(), type=Made)
    except (OSError, msgspec.DecodeError):
        return
    contexts = Contexts(contexts_file(os.environ))
    if made.context in contexts.names and contexts.get(made.context).token == made.token:
        contexts.remove(made.context)
