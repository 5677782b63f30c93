"""What an Engine says when it refuses, in words for the one who wrote the job file."""

from __future__ import annotations

import re

from towline.model.states import Reason
from towline.runtime.port import Plan, StartFailed

_NOT_FOUND = ("not found in $path", "no such file or directory")
_NO_ACCESS = ("unauthorized", "authentication required", "denied", "no basic auth", "forbidden")
_NO_IMAGE = (
    "manifest unknown",
    "not found",
    "no such image",
    "name unknown",
    "does not exist",
    "no matching manifest",
)
_SLOW = ("timeout", "timed out", "deadline", "connection refused", "no such host", "server misbehaving",
         "connection reset", "network is unreachable", "unexpected eof")  # fmt: skip
_CORRUPT = (
    "invalid",
    "digest",
    "checksum",
    "unexpected end",
    "corrupt",
    "unmarshal",
    "tar header",
    "payload",
)
_NO_SPACE = "no space left on device"
_TOO_LITTLE = ("memory limit", "minimum memory", "cannot allocate memory", "oom-killed")


def start_failure(plan: Plan, said: str, workdir: str) -> StartFailed:
    """Why a container was not made or did not start."""
    low = said.lower()
    program = plan.argv[0] if plan.argv else ""
    if any(text in low for text in _TOO_LITTLE):
        return StartFailed(
            f"resources.memory ({plan.memory_bytes} bytes) is too little to start anything: ask for more.",
            Reason.OOM_KILLED.value,
        )
    if _NO_SPACE in low:
        return StartFailed(f"There is no space left on this node's disk ({said[-200:]}).", "disk_full")
    if "unable to find user" in low or "no matching entries in passwd" in low:
        return StartFailed(f"The image knows no such user ({said[-200:]}): use a number, such as user: 1000.")
    if "chdir" in low or "mkdir /" in low or "workdir" in low or "working directory" in low:
        return StartFailed(f"workdir {workdir!r} cannot be entered in the image ({said[-200:]}).")
    if "bind source path" in low or "invalid mount config" in low or "statfs" in low:
        return StartFailed(f"The engine cannot mount a folder of this node: {said[-300:]}")
    return _of_program(plan, program, low) or StartFailed(
        f"The container could not be started: {said[-500:]}"
    )


def _of_program(plan: Plan, program: str, low: str) -> StartFailed | None:
    if "executable file" not in low and "exec" not in low:
        return None
    if "exec format error" in low:
        return StartFailed(
            f"{program!r} in the image is no program for this machine: use an image for it; a script needs a "
            f"first line such as #!/bin/sh."
        )
    if any(text in low for text in _NOT_FOUND):
        where = "file" if "/" in program else "program"
        path = "" if "/" in program else f" (PATH is {plan.env.get('PATH', '')})"
        return StartFailed(
            f"There is no {where} {program!r} in the image{path}: correct command, or add it to the image."
        )
    if "permission denied" in low or "is a directory" in low:
        return StartFailed(
            f"{program!r} in the image is not executable: chmod +x it in the image, or correct command."
        )
    return None


def pull_failure(image: str, said: str) -> tuple[str, Reason]:
    """(sentence, reason) of a pull that the Engine could not do, from what the registry told it."""
    low = said.lower()
    if _NO_SPACE in low:
        return f"There is no space left on this node's disk for the image {image}.", Reason.DISK_FULL
    # Registries hide what one may not see: Docker Hub's "denied … may require docker login" is either.
    if any(text in low for text in _NO_ACCESS):
        return (
            f"The registry does not give the image {image}: {_last(said)}. Log in with tow registry login, "
            f"or correct the name.",
            Reason.IMAGE_AUTH,
        )
    if any(text in low for text in _SLOW):
        return (
            f"The image {image} could not be pulled: {_last(said)}. Try again later.",
            Reason.IMAGE_PULL_TIMEOUT,
        )
    if any(text in low for text in _NO_IMAGE):
        return (
            f"There is no image {image}: {_last(said)}. Correct the name or the tag.",
            Reason.IMAGE_NOT_FOUND,
        )
    if any(text in low for text in _CORRUPT):
        return f"The image {image} is damaged: {_last(said)}.", Reason.IMAGE_CORRUPT
    return f"The image {image} could not be pulled: {_last(said)}.", Reason.IMAGE_PULL_TIMEOUT


def _last(said: str) -> str:
    return re.sub(r"\s+", " ", said).strip().rstrip(".")[-300:]
