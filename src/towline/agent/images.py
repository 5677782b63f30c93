"""The node's images, for people: what is there, what is in use, what is done with it on request, and how
far those are that attempts wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import structlog

from towline.agent.prepare import Template
from towline.beside import Beside
from towline.core.agent.machine import AgentMachine
from towline.errors import NotFound, RequestError, TowlineError
from towline.images import ImageFailed, ImageStore, Login
from towline.images.collect import Collected
from towline.images.progress import Progress
from towline.images.store import Stored
from towline.model.states import Reason
from towline.runtime.port import Plan
from towline.wire.messages import ImageAnswer, ImageCall, ImageInfo
from towline.wire.pulls import Pull, Pulls

TELL_EVERY_S = 0.5
MOST_TASKS = 1000
"""Tasks that are told of with one image."""


class Preparing(Protocol):
    """The executor, as far as it is asked here."""

    def images_in_hand(self) -> list[str]: ...


class NodeImages:
    """Answers ImageCalls; tells the store which images are in use."""

    def __init__(self, store: ImageStore, machine: AgentMachine, preparing: Preparing) -> None:
        self._store = store
        self._machine = machine
        self._preparing = preparing
        self._answers = Beside()
        self._log = structlog.get_logger("images")
        store.in_use = self.in_use

    def in_use(self) -> dict[str, int]:
        """By digest, how many attempts of the node have the image or are about to get it. Those that have
        ended count until the server has heard of it: their mounts may take a moment to go."""
        counts: dict[str, int] = {}
        for update, plan in self._machine.attempts():
            digest = update.image_digest
            if digest is None and isinstance(plan, Plan):
                digest = str(plan.runtime_data.get("image_digest") or "") or None
            if digest is not None:
                counts[digest] = counts.get(digest, 0) + 1
        for digest in self._preparing.images_in_hand():
            counts[digest] = counts.get(digest, 0) + 1
        return counts

    def answer(self, call: ImageCall, say: Callable[[ImageAnswer], None]) -> None:
        """Do what is asked, in a task of its own."""
        self._answers.start(self._answer(call, say))

    async def _answer(self, call: ImageCall, say: Callable[[ImageAnswer], None]) -> None:
        telling = asyncio.get_running_loop().create_task(self._tell(call.request, say))
        try:
            fields = await self._do(call)
        except ImageFailed as error:
            fields = {"error": str(error), "kind": error.reason}
        except NotFound as error:
            fields = {"error": str(error), "kind": "not_found"}
        except RequestError as error:
            fields = {"error": str(error), "kind": "refused"}
        except (TowlineError, OSError) as error:
            fields = {"error": str(error), "kind": Reason.START_FAILED.value}
        except Exception as error:
            self._log.exception("a request failed", what=call.what)
            fields = {
                "error": f"Towline met an error of its own: {error!r}",
                "kind": Reason.INTERNAL_ERROR.value,
            }
        finally:
            telling.cancel()
        say(ImageAnswer(request=call.request, **fields))

    async def _do(self, call: ImageCall) -> dict[str, Any]:
        match call.what:
            case "ls":
                return {"images": tuple(map(_info, await self._store.stored()))}
            case "pull":
                login = None if call.registry_auth is None else Login(*call.registry_auth)
                image = await self._store.ensure(call.reference, call.base_dir, login=login)
                found = [one for one in await self._store.stored() if one.digest == image.digest]
                return {"images": tuple(map(_info, found))}
            case "rm":
                return _collected(await self._store.remove(call.reference, call.base_dir))
            case "gc":
                budget = 0 if call.everything else None
                return _collected(await self._store.collect(budget, dry_run=call.dry_run))
            case _:
                raise RequestError(f"This node's build knows nothing of {call.what!r}: update it.")

    async def _tell(self, request: int, say: Callable[[ImageAnswer], None]) -> None:
        """How far pulls have come, also to show that somebody is there."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            steps = [f"{name}: {progress}" for name, progress in self._store.pulls.items()]
            say(ImageAnswer(request=request, done=False, progress="; ".join(steps)))


class Waiting(Protocol):
    """The executor, as far as it is asked here."""

    def waiting(self) -> Iterable[Template]: ...


class Pulling:
    """Tells the server how far the pulls are that attempts wait for, while there are any. ``progress_of``
    gives the pull that a task waits for, if there is one."""

    def __init__(self, waiting: Waiting, progress_of: Callable[[Template], Progress | None]) -> None:
        self._waiting = waiting
        self._progress_of = progress_of

    def now(self) -> tuple[Pull, ...]:
        """Each image once, with all that wait for it."""
        found: dict[Progress, list[tuple[str, int]]] = {}
        for template in self._waiting.waiting():
            progress = self._progress_of(template)
            if progress is not None:
                found.setdefault(progress, []).append((template.job, template.task))
        return tuple(
            Pull(
                progress.name,
                progress.step,
                progress.arrived(),
                progress.total_bytes,
                int((time.monotonic() - progress.begun_s) * 1000),
                tuple(tasks[:MOST_TASKS]),
            )
            for progress, tasks in found.items()
        )

    async def run(self, say: Callable[[Pulls], None]) -> None:
        """Until cancelled. Where nothing is pulled, nothing is said."""
        told = False
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            pulls = self.now()
            if pulls or told:
                say(Pulls(pulls=pulls))
            told = bool(pulls)


def _info(stored: Stored) -> ImageInfo:
    return ImageInfo(
        digest=stored.digest,
        names=stored.names,
        unpacked_bytes=stored.unpacked_bytes,
        compressed_bytes=stored.compressed_bytes,
        pulled_at=stored.pulled_at,
        used_at=stored.used_at,
        attempts=stored.attempts,
        progress=stored.progress,
    )


def _collected(done: Collected) -> dict[str, Any]:
    return {"removed": done.removed, "freed_bytes": done.freed_bytes, "left_bytes": done.left_bytes}
