"""A warning where tasks will run without the limits that they have."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from towline.cli.screen.terminal import safe, say
from towline.errors import TowlineError

if TYPE_CHECKING:
    from towline.client import Client, Submission

_LIMITS = ("memory", "cpu")


async def warn_of_limits(client: Client, submission: Submission, pool: str) -> None:
    """Say which nodes of a pool only count what containers ask for. For ``process`` that is known, and asks
    nobody."""
    runtimes = {_runtime(task) for task in _tasks(submission)} - {"process"}
    if not runtimes:
        return
    with suppress(TowlineError):
        for node in await client.nodes(pool):
            given = [set(node.protects[name]) for name in runtimes if name in node.protects]
            if node.state == "ready" and given:
                lacks = [limit for limit in _LIMITS if not all(limit in one for one in given)]
                if lacks:
                    say(
                        f"warning: {safe(node.name)} limits no {' and no '.join(lacks)} of containers: what "
                        f"tasks ask for is only counted (tow doctor says why)"
                    )


def _tasks(submission: Submission) -> list[Any]:
    tasks = submission.document.get("tasks")
    return list(tasks.values()) if isinstance(tasks, Mapping) else []


def _runtime(task: Any) -> str:
    return str(task.get("runtime") or "oci") if isinstance(task, Mapping) else "oci"
