"""What the nodes of a cluster cannot do: take inputs from another one, and end an Engine's containers."""

from __future__ import annotations

from collections.abc import Iterator

from towline.errors import InvalidDocument, Problem
from towline.model.job import JobSpec, TaskSpec


async def check_together(spec: JobSpec) -> None:
    """Raises InvalidDocument for tasks whose inputs may have been written on another node: they would find
    them empty, and nobody would be told. And for those that no node could end in time: they would wait."""
    problems = [*_apart(spec), *_unended(spec)]
    if problems:
        raise InvalidDocument(problems)


def _apart(spec: JobSpec) -> Iterator[Problem]:
    for name, task in spec.tasks.items():
        together = [name, *task.inputs]
        nodes = {_pinned(spec.tasks[other]) for other in together}
        if task.inputs and (None in nodes or len(nodes) > 1):
            yield Problem(
                f"tasks.{name}.inputs",
                "outputs do not move between the nodes of a cluster yet, and these may be written on another",
                f"give {', '.join(together)} the same where: {{node: NAME}}",
            )


def _unended(spec: JobSpec) -> Iterator[Problem]:
    for name, task in spec.tasks.items():
        if task.runtime == "docker" and task.on_disconnect == "stop":
            yield Problem(
                f"tasks.{name}.on_disconnect",
                "the docker runtime cannot keep stop in a cluster: the Engine runs the container, and "
                "nothing on a node that is cut off could end it for certain",
                "take the runtime oci, or on_disconnect: keep or wait",
            )


def _pinned(task: TaskSpec) -> str | None:
    """The one node that a task may run on; None where it may run on several."""
    for condition in task.where:
        if condition.key == "node" and condition.op in ("=", "in") and len(condition.values) == 1:
            return condition.values[0]
    return None
