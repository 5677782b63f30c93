"""Folders that a job names: what is wrong with them, and what makes relative ones absolute."""

from __future__ import annotations

import os.path
import posixpath

import msgspec

from towline.errors import InvalidDocument, Problem
from towline.model.imageref import ImageKind, ImageRef, parse_image
from towline.model.job import JobSpec, Mount, TaskSpec

__all__ = [
    "ImageKind",
    "ImageRef",
    "parse_image",
    "path_fault",
    "resolve_mounts",
    "resolve_path",
    "source_fault",
    "target_fault",
]

_RESERVED = {
    "proc": "in /proc, which is the kernel's",
    "sys": "in /sys, which is the kernel's",
    "dev": "in /dev, where only /dev/shm can be replaced",
    "tow": "in /tow, which is Towline's own",
}
"""The top folders of a container in which nothing can be shown, and why."""
_SHARED_MEMORY = "dev/shm"


def path_fault(path: str) -> str | None:
    """Why a path cannot be given to the system, or could mean another place than it seems to."""
    if not path:
        return "is empty"
    if not path.isprintable():
        return "contains characters that cannot be shown, such as a line break"
    if ".." in path.split("/"):
        return "contains '..'"
    return "is over 4,000 bytes long" if len(path.encode()) > 4_000 else None


def target_fault(target: str) -> str | None:
    """Why nothing can be shown at this place of a container."""
    fault = path_fault(target)
    if fault is not None:
        return fault
    if not target.startswith("/"):
        return "is not absolute"
    place = posixpath.normpath(target).lstrip("/")
    if place == "":
        return "is the root folder"
    owner = _RESERVED.get(place.partition("/")[0])
    if owner is None or place == _SHARED_MEMORY or place.startswith(f"{_SHARED_MEMORY}/"):
        return None
    return f"is {owner}"


def source_fault(source: str) -> str | None:
    """Why a folder of the node cannot be mounted, as far as its name tells."""
    fault = path_fault(source)
    if fault is not None:
        return fault
    root = source.startswith("/") and posixpath.normpath(source).strip("/") == ""
    return "is the root folder" if root else None


def resolve_path(path: str, base_dir: str | None) -> str:
    """An absolute path of what a job file names, relative to its folder. Raises ValueError without one."""
    if path.startswith("/"):
        return os.path.normpath(path)
    if base_dir is None or not base_dir.startswith("/"):
        raise ValueError("is relative, and the job has no base_dir")
    return os.path.normpath(os.path.join(base_dir, path))  # noqa: PTH118 - not this machine's


def resolve_mounts(spec: JobSpec, base_dir: str | None) -> JobSpec:
    """The job with absolute sources of all mounts; itself where nothing is relative.

    Raises InvalidDocument for a relative source where there is no ``base_dir``.
    """
    problems: list[Problem] = []
    tasks: dict[str, TaskSpec] = {}
    for name, task in spec.tasks.items():
        if all(mount.source.startswith("/") for mount in task.mounts):
            tasks[name] = task
            continue
        mounts: list[Mount] = []
        for at, mount in enumerate(task.mounts):
            try:
                source = resolve_path(mount.source, base_dir)
            except ValueError as error:
                where = f"tasks.{name}.mounts[{at}].source"
                problems.append(Problem(where, str(error), "write an absolute path, or give base_dir"))
                continue
            mounts.append(msgspec.structs.replace(mount, source=source))
        tasks[name] = msgspec.structs.replace(task, mounts=tuple(mounts))
    if problems:
        raise InvalidDocument(problems)
    return msgspec.structs.replace(spec, tasks=tasks)
