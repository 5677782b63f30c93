"""The runtimes that the suite runs on: a new runtime adds a line here and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.conformance.runtimes.docker_case import DockerNode, DockerPlans
from tests.conformance.runtimes.node import MakePlan, Node
from tests.conformance.runtimes.oci_case import prepare_oci
from tests.container_host import ISOLATIONS

from towline.runtime.port import Plan


class Registered(NamedTuple):
    """``prepare(folder)`` is called once a run, makes what plans need (images), and gives the maker."""

    prepare: Callable[[Path], MakePlan]
    marks: tuple[str, ...] = ()
    """Names of pytest marks, such as ``containers``."""
    node: Callable[[MakePlan], Node] = Node
    supervised: bool = True
    """By keeper and supervisor; else by an engine, which outlives every process of ours."""
    slow: bool = False
    """So slow that it is spared the tests marked ``thorough``, which another of its kind goes through."""


def process_plan(node: str, attempt: str, script: str, **fields: object) -> Plan:
    job, task, index, number = attempt.rsplit("-", 3)
    out = f"{node}/artifacts/{job}/{task}/{index}"
    env = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "TOW_JOB": job,
        "TOW_TASK": task,
        "TOW_INDEX": index,
        "TOW_ATTEMPT": number,
        "TOW_OUT": out,
        "TEST_NODE": node,
    }
    given = {
        "runtime": "process",
        "argv": ("sh", "-c", script),
        "env": env,
        "directory": f"{node}/attempts/{attempt}",
        "logs": f"{node}/output/{attempt}",
        "out": out,
        "timeout_ms": None,
        "grace_ms": 10_000,
        "max_log_bytes": 64 << 20,
    }
    return Plan(attempt=attempt, **(given | fields))


RUNTIMES: dict[str, Registered] = {
    "process": Registered(lambda folder: process_plan),
    "oci-crun": Registered(partial(prepare_oci, isolation=ISOLATIONS["crun"]), marks=("containers",)),
    "oci-runc": Registered(partial(prepare_oci, isolation=ISOLATIONS["runc"]), marks=("containers",)),
    "docker": Registered(partial(DockerPlans, "docker"), ("containers",), DockerNode, supervised=False),
    "podman": Registered(
        partial(DockerPlans, "podman"), ("containers",), DockerNode, supervised=False, slow=True
    ),
}
