"""From an order to a Plan: all that the supervisor needs, resolved on this node.

What the elements of a task share (image, mounts, environment, folders) is found once and kept in a
``Template``; a Plan of one more element is then a few dictionaries, also for forty in one go.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from towline.agent.artifacts import Artifacts
from towline.agent.devices import LocalGpus
from towline.agent.docker.side import DockerSide, EngineImageLike
from towline.errors import NO_ROOM, NodeError
from towline.images import Image, ImageFailed, ImageStore, Login
from towline.images.progress import Progress
from towline.model.job import Array, TaskSpec
from towline.model.states import Reason
from towline.model.template import render_task
from towline.runtime.oci.disk import DiskUnavailable
from towline.runtime.oci.disk import template as disk_template
from towline.runtime.oci.spec import Isolation, OciData, final_argv_env, runtime_data
from towline.runtime.port import Plan, StartFailed
from towline.runtime.secrets import TARGET, SecretFiles
from towline.runtime.spawning import DEFAULT_PATH
from towline.wire.messages import TaskInfo

MAX_TEMPLATES = 4096
_ENGINE_LEASE = (
    "on_disconnect: stop cannot be kept here, where the task runs by a Docker or Podman of the node: "
    "nothing would stop it where that hangs. Run it on a node that has the runtime oci, or write "
    "on_disconnect: keep or wait."
)
"""Tasks remembered. A server tells of a task once a link: an order of one that was dropped is declined,
and the link opened anew."""


class Unprepared(Exception):
    """An attempt cannot be prepared. ``reason`` is a Reason's word; the text is for people, and ``tried``
    what was done, with unix ms."""

    def __init__(self, message: str, reason: str, tried: tuple[tuple[int, str], ...] = ()) -> None:
        self.reason = reason
        self.tried = tried
        super().__init__(message)


class Template:
    """One task on this node. ``ready`` says that plans can be made."""

    def __init__(self, info: TaskInfo) -> None:
        self.each = frozenset(need.task for need in info.spec.needs if need.each)
        self.job, self.task, self.base_dir = info.job, info.task, info.base_dir
        self.input_tasks = info.input_tasks
        self.spec = structs.replace(info.spec, needs=())  # up to thousands, which nobody here asks for
        self.array = info.spec.array or Array()
        self.tow = {"TOW_JOB": info.job, "TOW_TASK": info.task_name}
        self.ready = False
        self.image: Image | EngineImageLike | None = None
        self.runtime: str = info.spec.runtime
        """What its attempts run by, which may be another one than it asks for."""
        self.pinned = info.image_digest
        self.login = None if info.registry_auth is None else Login(*info.registry_auth)
        self.secrets = info.secrets
        self.env: dict[str, str] = {}
        self.runtime_data: dict[str, object] = {}
        self.attempts_folder = ""
        self.owner: tuple[int, int] | None = None
        """Who TOW_OUT belongs to inside the container, where that is not us."""
        self.arrays: dict[str, str] = {}
        """The folders of needed arrays, which have ended and do not change any more."""
        self.inputs: tuple[tuple[str, str], ...] | None = None
        """The same for all elements; None where they differ."""

    def pin(self, image_digest: str) -> None:
        """All elements from now on run this image, whatever its name stands for."""
        self.pinned = image_digest
        if self.image is not None and self.image.digest != image_digest:
            self.ready = False


class Templates:
    """The tasks that the server has told of, the least used leave first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], Template] = OrderedDict()

    def add(self, info: TaskInfo) -> None:
        known = self.get(info.job, info.task)
        if known is not None:  # as every new link says again; a job never changes, but what is pinned does
            known.login = None if info.registry_auth is None else Login(*info.registry_auth)
            known.secrets = info.secrets
            if info.image_digest is not None:
                known.pin(info.image_digest)
            return
        self._kept[info.job, info.task] = Template(info)
        if len(self._kept) > MAX_TEMPLATES:
            self._kept.popitem(last=False)

    def pin(self, job: str, task: int, image_digest: str) -> None:
        template = self.get(job, task)
        if template is not None:
            template.pin(image_digest)

    def get(self, job: str, task: int) -> Template | None:
        template = self._kept.get((job, task))
        if template is not None:
            self._kept.move_to_end((job, task))
        return template


class Preparer:
    """Makes templates ready and plans from them, for one node's folder."""

    def __init__(
        self,
        node_dir: Path,
        artifacts: Artifacts,
        images: ImageStore,
        environ: Mapping[str, str],
        allowed_mounts: Sequence[str] = (),
        mount_base_dir: bool = False,
        gpus: LocalGpus | None = None,
    ) -> None:
        self._node_dir = os.fspath(node_dir)
        self._artifacts = artifacts
        self._images = images
        self._allowed_mounts = tuple(allowed_mounts)
        self._mount_base_dir = mount_base_dir
        self._gpus = gpus or LocalGpus(())
        self.secrets = SecretFiles(self._node_dir)
        self.isolation: Isolation | None = None
        """What containers get here, once it is known."""
        self.docker: DockerSide | None = None
        self._process_env = {
            "PATH": environ.get("PATH", DEFAULT_PATH),
            "HOME": environ.get("HOME", "/"),
            "LANG": environ.get("LANG", "C.UTF-8"),
        }

    def is_ready(self, template: Template) -> bool:
        """Whether plans can be made at once: an image may have been collected since the last one."""
        if not template.ready or template.image is None or template.runtime == "docker":
            return template.ready
        return self._images.is_ready(template.image.digest)

    def progress_of(self, template: Template) -> Progress | None:
        """How far the pull is that a task waits for, if it waits for one."""
        spec = template.spec
        if spec.image is None or spec.runtime == "process":
            return None
        if self.docker is not None and self.docker.takes(spec):
            return self.docker.progress_of(spec.image)
        return self._images.progress_of(spec.image, template.base_dir)

    # --- what a task's elements share ---------------------------------------------------------------
    def make_ready_now(self, template: Template) -> bool:
        """For what needs no waiting. False: await ``make_ready``. Raises Unprepared."""
        if template.spec.runtime != "process" or template.spec.inputs:
            return False
        self._share_process(template)
        self._share_folders(template)
        template.ready = True
        return True

    async def make_ready(self, template: Template) -> None:
        """Have the image, resolve the mounts, find the inputs. Raises Unprepared."""
        if template.spec.runtime == "process":
            self._share_process(template)
        else:
            await self._share_image(template)
        if template.spec.inputs:  # a folder each for elements that wrote nothing may take a while
            await asyncio.to_thread(self._share_folders, template)
        else:
            self._share_folders(template)
        template.ready = True

    def _share_process(self, template: Template) -> None:
        template.env = {**self._process_env, **template.spec.env}
        if template.spec.workdir is not None:
            template.runtime_data = {"workdir": template.spec.workdir}

    async def _share_image(self, template: Template) -> None:
        spec = template.spec
        if spec.image is None:
            raise Unprepared("The task names no image.", Reason.START_FAILED.value)
        roots = list(self._allowed_mounts)
        if self._mount_base_dir and template.base_dir is not None:
            roots.append(template.base_dir)
        try:
            if self.docker is not None and self.docker.takes(spec):
                await self._of_engine(template, self.docker, roots)
                return
            image = await self._image(template, spec.image)
            data = await self._container(spec, image, roots)
        except ImageFailed as error:
            raise Unprepared(str(error), error.reason, error.tried) from error
        except StartFailed as error:
            raise Unprepared(str(error), error.reason) from error
        except (NodeError, OSError) as error:
            raise Unprepared(str(error), Reason.START_FAILED.value) from error
        template.image = image
        template.runtime_data = {**data, "image_digest": image.digest}
        writer = msgspec.convert(data, OciData).writer
        if writer != (os.geteuid(), os.getegid()):
            template.owner = writer

    async def _of_engine(self, template: Template, docker: DockerSide, roots: Sequence[str]) -> None:
        """Raises ImageFailed, StartFailed, NodeError."""
        pinned, login = template.pinned, template.login
        image, data = await docker.prepare(template.spec, template.base_dir, roots, pinned, login)
        template.image, template.runtime_data, template.runtime = image, data, "docker"

    async def _container(self, spec: TaskSpec, image: Image, roots: Sequence[str]) -> dict[str, Any]:
        """Raises StartFailed."""
        if self.isolation is None:
            raise StartFailed("This node can run no containers: tow doctor says why.")
        disk = None
        if spec.resources.disk_bytes and self.isolation.rootless and "disk" in spec.require:
            raise StartFailed("resources.disk cannot be kept by an ordinary user: start tow as root (sudo).")
        if spec.resources.disk_bytes and not self.isolation.rootless:
            folder = Path(self._node_dir, "disks")
            try:
                disk = await asyncio.to_thread(disk_template, folder, spec.resources.disk_bytes)
            except DiskUnavailable as error:
                if "disk" in spec.require:
                    raise StartFailed(f"resources.disk cannot be kept: {error}.") from error
        return runtime_data(spec, os.fspath(image.rootfs), image.config, roots, self.isolation, disk)

    async def _image(self, template: Template, name: str) -> Image:
        while True:
            pinned = template.pinned
            image = await self._images.ensure(
                name, template.base_dir, pinned=pinned, login=template.login, scope=template.job
            )
            if template.pinned == pinned:  # else another node was quicker
                return image

    def _share_folders(self, template: Template) -> None:
        try:
            template.attempts_folder = self._artifacts.begin_task(template.job, template.task)
            _, _, _, inputs = render_task(template.spec, template.array.first, None)
            if inputs is template.spec.inputs and not template.each:
                template.inputs = self._inputs(template, inputs, template.array.first)
        except OSError as error:
            raise _no_folder(error) from error

    # --- one element --------------------------------------------------------------------------------
    def plan(
        self,
        template: Template,
        attempt: str,
        index: int,
        number: int,
        devices: str | None = None,
        lease_ms: int = 0,
    ) -> Plan:
        """The plan of one attempt, whose TOW_OUT folder is made. Raises Unprepared.

        ``devices``: the GPUs that it was given, as in AttemptRow. ``lease_ms``: as in Plan."""
        spec = template.spec
        if lease_ms and template.runtime == "docker":
            raise Unprepared(_ENGINE_LEASE, Reason.START_FAILED.value)
        value = template.array.value(index)
        command, args, env, inputs = render_task(spec, index, value)
        out = f"{template.attempts_folder}/{index}.{number}"
        directory = f"{self._node_dir}/attempts/{attempt}"
        try:
            self._make_out(template, out)
            shared = template.inputs
            links = shared if shared is not None else self._inputs(template, inputs, index)
        except OSError as error:
            raise _no_folder(error) from error
        secrets = self._secrets(template, attempt) if spec.secrets else ""
        if secrets and template.image is not None:
            links = (*links, (secrets, TARGET))
        argv, variables = _command(template, directory, command, args, env, {
            **template.tow,
            "TOW_INDEX": str(index),
            "TOW_VALUE": value or "",
            "TOW_ATTEMPT": str(number),
            "TOW_OUT": out,
            **(self._gpus.environment(devices) if self._gpus.rows or spec.resources.gpu else {}),
            **({} if not secrets else {"TOW_SECRETS": secrets if template.image is None else TARGET}),
        })  # fmt: skip
        return Plan(
            attempt=attempt,
            runtime=template.runtime,
            argv=argv,
            env=variables,
            directory=directory,
            logs=f"{self._node_dir}/output/{attempt}",
            out=out,
            timeout_ms=spec.timeout_ms,
            grace_ms=spec.grace_ms,
            max_log_bytes=spec.logs.max_bytes,
            lease_ms=lease_ms,
            inputs=links,
            secrets=secrets,
            cpu_milli=spec.resources.cpu_milli,
            memory_bytes=spec.resources.memory_bytes,
            pids=spec.resources.pids,
            disk_bytes=spec.resources.disk_bytes or 0,
            devices=() if devices is None else self._gpus.nodes(devices),
            runtime_data=template.runtime_data,
        )

    def _secrets(self, template: Template, attempt: str) -> str:
        """Write the attempt's secrets; returns their folder. Raises Unprepared."""
        wanted = template.spec.secrets
        for file, name in wanted.items():
            if file not in template.secrets:
                raise Unprepared(
                    f"The secret {name!r} is not stored any more: set it with tow secret set {name}, and "
                    f"submit the job again.",
                    Reason.START_FAILED.value,
                )
        try:
            return self.secrets.write(attempt, template.secrets, template.owner)
        except (OSError, NodeError) as error:
            raise Unprepared(f"Its secrets cannot be written: {error}", Reason.START_FAILED.value) from error

    def _make_out(self, template: Template, out: str) -> None:
        try:
            os.mkdir(out, 0o755)
        except FileExistsError:
            return  # by an agent that died before it handed the plan over
        if template.owner is not None:
            os.chown(out, *template.owner)

    def _inputs(
        self, template: Template, inputs: Mapping[str, str], index: int
    ) -> tuple[tuple[str, str], ...]:
        """(folder, target) of each: a whole array under INDEX/ children, but of ``each`` needs only the
        element in the same place, directly."""
        links: list[tuple[str, str]] = []
        for name, target in inputs.items():
            task, first, last, is_array = template.input_tasks[name]
            if name in template.each:
                place = first + index - template.array.first
                folder = self._artifacts.element(template.job, task, place)
            elif is_array:
                folder = template.arrays.get(name) or self._artifacts.array(template.job, task, first, last)
                template.arrays[name] = folder
            else:
                folder = self._artifacts.element(template.job, task, first)
            links.append((folder, target))
        return tuple(links)


def _command(
    template: Template,
    directory: str,
    command: Sequence[str] | None,
    args: Sequence[str] | None,
    env: dict[str, str],
    tow: dict[str, str],
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What one element runs, and its whole environment. Raises Unprepared."""
    if template.image is not None:
        try:
            return final_argv_env(command, args, env, tow, template.image.config)
        except StartFailed as error:
            raise Unprepared(str(error), error.reason) from error
    shared = template.env if env is template.spec.env else {**template.env, **env}
    return (*(command or ()), *(args or ())), {"TMPDIR": directory, **shared, **tow}


def _no_folder(error: OSError) -> Unprepared:
    reason = Reason.DISK_FULL if error.errno in NO_ROOM else Reason.START_FAILED
    where = f" {error.filename}" if error.filename else ""
    return Unprepared(f"The folder{where} cannot be made on the node: {error.strerror}.", reason.value)
