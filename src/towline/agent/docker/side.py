"""The agent's docker side: which tasks go to an Engine, what their Plans hold, and who hears of wishes.

A task goes to it that asks for ``runtime: docker``, and one of the default ``oci`` on a node that cannot
run that itself but has an Engine (docs/decisions/0008-oci-through-an-engine.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import structs

from towline.agent import control
from towline.core.commands import AttemptUpdate
from towline.errors import NodeError
from towline.images import ImageConfig
from towline.images.progress import Progress
from towline.images.settings import ImageSettings
from towline.model.job import TaskSpec
from towline.runtime.docker.probe import Found, probe_docker
from towline.runtime.docker.spec import docker_data
from towline.runtime.policy import Wanted
from towline.runtime.port import Probe, StartFailed, Wish

if TYPE_CHECKING:
    from towline.agent.docker.images import EngineImages
    from towline.agent.docker.runner import DockerRunner
    from towline.agent.exec.inside import Inside


LOOK_AGAIN_S = 5.0


class Supervisor(Protocol):
    def say(self, message: control.ToSupervisor) -> None: ...


class EngineImageLike(Protocol):
    """``images.EngineImage`` as far as others use it."""

    @property
    def digest(self) -> str: ...

    @property
    def config(self) -> ImageConfig: ...


class DockerSide:
    """Does nothing, and loads no client library, until ``open`` is given an Engine that was found or an
    earlier agent has left records."""

    def __init__(
        self,
        node_dir: Path,
        tell: Callable[[Sequence[AttemptUpdate]], None],
        wanted: Wanted,
        environ: Mapping[str, str],
        images: ImageSettings | None = None,
    ) -> None:
        self._node_dir = node_dir
        self._tell = tell
        self._wanted = wanted
        self._image_settings = images or ImageSettings()
        self._environ = environ
        self._looking: asyncio.Task[None] | None = None
        self._runner: DockerRunner | None = None
        self._images: EngineImages | None = None
        self._instead_of_oci = False
        self._local = False
        self.supervisor: Supervisor | None = None
        if (node_dir / "docker").is_dir():
            self._make_runner()

    def _make_runner(self) -> DockerRunner:
        from towline.agent.docker.runner import DockerRunner

        if self._runner is None:
            self._runner = DockerRunner(self._node_dir, self._tell)
        return self._runner

    def open(self, found: Found, oci: Probe, node: str) -> None:
        """After the node has been probed. Where an earlier agent left something with an Engine that does
        not answer now, it is looked for again and again."""
        if found.url is None:
            if self._runner is not None and self._runner.busy:
                self._looking = asyncio.get_running_loop().create_task(self._look_again(oci, node))
            return
        from towline.agent.docker.client import Engine
        from towline.agent.docker.images import EngineImages

        engine = Engine(found.url, found.traits.api)
        self._images = EngineImages(engine, self._image_settings, found.traits.podman)
        self._instead_of_oci = oci.problem is not None
        self._local = found.traits.local
        self._make_runner().open(engine, found.traits, node)

    async def _look_again(self, oci: Probe, node: str) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN_S)
            found = await asyncio.to_thread(probe_docker, self._environ)
            if found.url is not None:
                self.open(found, oci, node)
                return

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if self._runner is not None:
            await self._runner.close()

    def known(self) -> list[AttemptUpdate]:
        """What it has of attempts, beside the supervisor's journal."""
        return [] if self._runner is None else self._runner.known()

    def takes(self, task: TaskSpec) -> bool:
        """Whether attempts of this task are containers of the Engine."""
        return task.runtime == "docker" or (task.runtime == "oci" and self._instead_of_oci)

    async def prepare(
        self,
        task: TaskSpec,
        base_dir: str | None,
        roots: Sequence[str],
        pinned: str | None,
        login: tuple[str, str, str] | None,
    ) -> tuple[EngineImageLike, dict[str, Any]]:
        """The image and the ``runtime_data`` of a task that it takes. Raises ImageFailed, StartFailed,
        NodeError."""
        if self._images is None:
            raise NodeError("This node has no engine of Docker or Podman: tow doctor says why.")
        image = await self._images.ensure(task.image or "", base_dir, pinned, login)
        if task.secrets and not self._local:
            raise StartFailed(
                "The engine runs on another kernel, which cannot show containers files of this machine's "
                "memory: tasks with secrets need one of this machine, or oci."
            )
        config, wanted = image.config, self._wanted
        data = docker_data(
            task, image.id, image.digest, config.user, config.workdir, roots, wanted.policy, wanted.owner
        )
        return image, data

    def progress_of(self, image: str) -> Progress | None:
        """How far the Engine's pull of an image is, if there is one."""
        return None if self._images is None else self._images.progress_of(image)

    async def runs(self, attempt: str) -> bool:
        """Whether it is a container of the Engine that runs."""
        return self._runner is not None and await self._runner.still_runs(attempt)

    def inside(self, attempt: str, wish: Wish) -> Inside | None:
        """A further command in a running container; None where the attempt is none of an Engine's. Raises
        CannotExec."""
        if self._runner is None or not self._runner.has(attempt):
            return None
        return self._runner.inside(attempt, wish)

    def say(self, message: control.ToSupervisor) -> None:
        """A wish goes to whom it concerns: plans by their runtime, the rest to both, who ignore what they
        do not know."""
        if isinstance(message, control.Run):
            mine = tuple(plan for plan in message.plans if plan.runtime == "docker")
            if mine:
                self._make_runner().say(control.Run(plans=mine))
            rest = tuple(plan for plan in message.plans if plan.runtime != "docker")
            if not rest:
                return
            message = control.Run(plans=rest) if mine else message
        elif self._runner is not None:
            self._runner.say(message)
        assert self.supervisor is not None
        self.supervisor.say(message)


def probes_of(oci: Probe, docker: Probe) -> list[Probe]:
    """What the node says of both: ``oci`` is there too where an Engine runs it, with what that protects."""
    if oci.problem is not None and docker.problem is None:
        oci = structs.replace(docker, name="oci")
    return [oci, docker]
