"""What the nodes of a cluster cannot do, whichever of them an element would run on."""

from __future__ import annotations

from towline.errors import InvalidDocument, Problem
from towline.model.job import JobSpec


async def check_together(spec: JobSpec) -> None:
    """Raises InvalidDocument for tasks that no node could end in time: they would wait for ever."""
    problems = [
        Problem(
            f"tasks.{name}.on_disconnect",
            "the docker runtime cannot keep stop in a cluster: the Engine runs the container, and "
            "nothing on a node that is cut off could end it for certain",
            "take the runtime oci, or on_disconnect: keep or wait",
        )
        for name, task in spec.tasks.items()
        if task.runtime == "docker" and task.on_disconnect == "stop"
    ]
    if problems:
        raise InvalidDocument(problems)
