"""The suite's plans as containers of busybox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.container_host import ISOLATIONS
from tests.containers import build_busybox_image

from towline.images import Image, ImageStore
from towline.model.job import TaskSpec
from towline.runtime.oci.spec import Isolation, final_argv_env, runtime_data
from towline.runtime.port import Plan


def prepare_oci(folder: Path, isolation: Isolation = ISOLATIONS["crun"]) -> Callable[..., Plan]:
    """Build and unpack the image; plans of containers that run a script in it."""
    reference = build_busybox_image(folder / "busybox")
    image = asyncio.run(ImageStore(folder / "images").ensure(reference, None))

    def oci_plan(node: str, attempt: str, script: str, **fields: Any) -> Plan:
        return _plan(image, isolation, node, attempt, script, fields)

    return oci_plan


def _plan(
    image: Image, isolation: Isolation, node: str, attempt: str, script: str, fields: dict[str, Any]
) -> Plan:
    job, task, index, number = attempt.rsplit("-", 3)
    tow = {"TOW_JOB": job, "TOW_TASK": task, "TOW_INDEX": index, "TOW_ATTEMPT": number}
    tow["TEST_NODE"] = node
    argv, env = final_argv_env(("sh", "-c", script), None, {}, tow, image.config)
    given = {
        "runtime": "oci",
        "argv": argv,
        "env": env,
        "directory": f"{node}/attempts/{attempt}",
        "logs": f"{node}/output/{attempt}",
        "out": f"{node}/artifacts/{job}/{task}/{index}",
        "timeout_ms": None,
        "grace_ms": 10_000,
        "max_log_bytes": 64 << 20,
        "memory_bytes": 256 << 20,
        "pids": 256,
        "runtime_data": runtime_data(TaskSpec(), str(image.rootfs), image.config, [], isolation),
    }
    return Plan(attempt=attempt, **(given | fields))
