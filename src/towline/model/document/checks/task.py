"""Checks of one task: what its runtime takes, texts, mounts, retries; the rest by the files beside."""

from __future__ import annotations

import posixpath
from typing import Any

from towline.model import names
from towline.model.document.checks.isolation import check_isolation
from towline.model.document.checks.placing import check_placing
from towline.model.document.lines import Where
from towline.model.document.reading import Reading
from towline.model.job import TaskSpec
from towline.model.names import did_you_mean, shown
from towline.model.places import parse_image, path_fault, source_fault, target_fault
from towline.model.states import RETRYABLE
from towline.model.template import names_in

MAX_TEXT_BYTES = 128 * 1024 - 1
"""Linux takes no single argument or variable of more."""
MAX_ARGUMENT_BYTES = 1024**2
"""For command, args and env of a task together: half of what Linux takes by default."""
MAX_MOUNTS = 100
_RESERVED = "TOW_"
_OF_CONTAINERS = ("image", "mounts", "network", "args", "user", "capabilities", "privileged")
_WORKDIR_REMEDY = "write a path such as /work"


def check_task(reading: Reading, task: TaskSpec, where: Where, tree: dict[str, Any]) -> None:
    """Note everything that is wrong with one task, its needs left out."""
    if not reading.failed(*where.keys, "runtime"):
        (_check_process if task.runtime == "process" else _check_container)(reading, task, where, tree)
    if task.command == () and not reading.failed(*where.keys, "command"):
        process = task.runtime == "process"
        remedy = "name the program to run" if process else "leave it out to run what the image says"
        reading.bad(Where(where, "command"), "is an empty list", remedy)
    if task.command and task.command[0] == "":
        remedy = "its first text is the program to run, such as sh"
        reading.bad(Where(Where(where, "command"), 0), "is an empty text", remedy)
    if task.command is not None and task.args is not None:
        reading.bad(
            Where(where, "args"),
            "stands beside command, which replaces the image's entrypoint and its arguments",
            "put the arguments into command",
        )
    _check_texts(reading, task, where)
    _check_targets(reading, task, where)
    _check_mounts(reading, task, where)
    _check_retries(reading, task, where)
    _check_values(reading, task, where)
    check_isolation(reading, task, where)
    check_placing(reading, task, where)


def _check_container(reading: Reading, task: TaskSpec, where: Where, tree: dict[str, Any]) -> None:
    image_at = Where(where, "image")
    if task.image is not None:
        try:
            parse_image(task.image)
        except ValueError as error:
            reading.bad(image_at, f"is {shown(task.image)}", str(error))
    elif not reading.failed(*image_at.keys):
        reading.bad(
            image_at,
            "is missing",
            "write image: busybox:1.36, or runtime: process for no container",
        )
    for name, target in task.inputs.items():
        fault = target_fault(target)
        if fault is not None:
            place = Where(Where(where, "inputs"), name)
            reading.bad(place, f"{shown(target)} {fault}", f"write an absolute path such as /in/{name[:63]}")
    if task.workdir is not None:
        fault = path_fault(task.workdir) or ("is not absolute" if not task.workdir.startswith("/") else None)
        if fault is not None:
            reading.bad(
                Where(where, "workdir"), f"{shown(task.workdir)} {fault}", "write a path such as /work"
            )


def _check_process(reading: Reading, task: TaskSpec, where: Where, tree: dict[str, Any]) -> None:
    for name in _OF_CONTAINERS:
        if tree.get(name) is not None:
            remedy = "put them into command" if name == "args" else "leave it out, or use runtime: oci"
            reading.bad(Where(where, name), "is not for runtime: process, which has no container", remedy)
    if task.command is None and not reading.failed(*where.keys, "command"):
        reading.bad(Where(where, "command"), "is missing", 'write command: ["sh", "-c", "echo hello"]')
    for name, target in task.inputs.items():
        fault = path_fault(target) or ("is absolute" if target.startswith("/") else None)
        fault = fault or ("is the working folder itself" if posixpath.normpath(target) == "." else None)
        if fault is not None:
            place = Where(Where(where, "inputs"), name)
            reading.bad(
                place,
                f"{shown(target)} {fault}",
                f"write a path inside the working folder, such as in/{name[:63]}",
            )
    if task.workdir is not None and (fault := path_fault(task.workdir)) is not None:
        reading.bad(Where(where, "workdir"), f"{shown(task.workdir)} {fault}", _WORKDIR_REMEDY)


def _check_targets(reading: Reading, task: TaskSpec, where: Where) -> None:
    """No two mounts or inputs at one place of the container, where one would hide the other."""
    mounts_at, inputs_at = Where(where, "mounts"), Where(where, "inputs")
    targets: list[tuple[Where, str]] = []
    if not reading.failed(*mounts_at.keys):
        targets += [(Where(mounts_at, at), mount.target) for at, mount in enumerate(task.mounts)]
    targets += [(Where(inputs_at, name), target) for name, target in task.inputs.items()]
    seen: dict[str, Where] = {}
    for place, target in targets:
        other = seen.setdefault(posixpath.normpath(target).lstrip("/"), place)
        if other is not place:
            reading.bad(place, f"{shown(target)} is the target of {other} too", "use another one")


def _check_texts(reading: Reading, task: TaskSpec, where: Where) -> None:
    """Bounds on what the kernel is given, so that a job is refused here and not at its start."""
    total = 0
    for field in ("command", "args"):
        for at, text in enumerate(getattr(task, field) or ()):
            size = len(text.encode())
            total += size + 1
            if size > MAX_TEXT_BYTES:
                _too_long(reading, Where(Where(where, field), at), size)
    env_at = Where(where, "env")
    for name, value in task.env.items():
        size = len(name.encode()) + len(value.encode()) + 1
        total += size + 1
        if not names.ENV_NAME.match(name):
            reading.bad(Where(env_at, name), f"the name is {shown(name)}", names.ENV_NAME_RULE)
        elif name.startswith(_RESERVED):
            reading.bad(Where(env_at, name), "names with TOW_ are given by Towline", "use another name")
        if size > MAX_TEXT_BYTES:
            _too_long(reading, Where(env_at, name), size)
    if task.array is not None and task.array.values is not None:
        for at, value in enumerate(task.array.values):
            if len(value) * 4 > MAX_TEXT_BYTES and (size := len(value.encode()) + 16) > MAX_TEXT_BYTES:
                _too_long(reading, Where(Where(where, "array"), at), size)
    if total > MAX_ARGUMENT_BYTES:
        reading.bad(
            where,
            f"command, args and env have {total:,} bytes together",
            f"at most {MAX_ARGUMENT_BYTES:,}: put data into a file and mount it",
        )


def _too_long(reading: Reading, where: Where, size: int) -> None:
    reading.bad(
        where, f"has {size:,} bytes", f"at most {MAX_TEXT_BYTES:,}: put data into a file and mount it"
    )


def _check_mounts(reading: Reading, task: TaskSpec, where: Where) -> None:
    mounts_at = Where(where, "mounts")
    if len(task.mounts) > MAX_MOUNTS:
        reading.bad(mounts_at, f"has {len(task.mounts)} mounts", f"at most {MAX_MOUNTS}")
        return
    if reading.failed(*mounts_at.keys):
        return  # an invalid item is not in the list, so positions no longer tell which one is meant
    for at, mount in enumerate(task.mounts):
        fault = source_fault(mount.source)
        if fault is not None:
            remedy = "write the folder itself, such as ./data"
            reading.bad(Where(Where(mounts_at, at), "source"), f"{shown(mount.source)} {fault}", remedy)
        fault = target_fault(mount.target)
        if fault is not None:
            remedy = "write an absolute path such as /data"
            reading.bad(Where(Where(mounts_at, at), "target"), f"{shown(mount.target)} {fault}", remedy)


def _check_retries(reading: Reading, task: TaskSpec, where: Where) -> None:
    place = Where(where, "retries")
    backoff = task.retries.backoff
    if backoff.first_ms > backoff.max_ms and not reading.failed(*place.keys, "backoff"):
        backoff_at = Where(place, "backoff")
        reading.bad(backoff_at, "first is longer than max", "make max at least as long as first")
    if task.retries.on is None or reading.failed(*place.keys, "on"):
        return
    for at, reason in enumerate(task.retries.on):
        if reason not in RETRYABLE:
            known = [word.value for word in RETRYABLE]
            reading.bad(
                Where(Where(place, "on"), at),
                f"{shown(reason)} is no reason to retry for",
                did_you_mean(reason, known),
            )


def _check_values(reading: Reading, task: TaskSpec, where: Where) -> None:
    if reading.failed(*where.keys, "array") or (task.array is not None and task.array.values is not None):
        return
    used = {
        "command": task.command or (),
        "args": task.args or (),
        "env": task.env.values(),
        "inputs": task.inputs.values(),
    }
    for field, texts in used.items():
        if any("value" in names_in(text) for text in texts):
            reading.bad(
                Where(where, field),
                "has {{value}}, but the task's array has no values",
                "write array: [first, second], or use {{index}}",
            )
