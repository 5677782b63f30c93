"""What this machine, where it is the only node, can run at all: what it cannot would wait for ever."""

from __future__ import annotations

import asyncio
import time

from towline.errors import InvalidDocument, Problem, Unavailable
from towline.model.job import JobSpec
from towline.model.views import NodeView
from towline.server.leader.loop import Leader

_PATIENCE_S = 5.0
_LOOK_AGAIN_S = 0.01


class OnlyNode:
    """The node as the leader knows it; it is still on its way for a moment after a start."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    async def check(self, spec: JobSpec) -> None:
        """Raises InvalidDocument for tasks whose runtime cannot be used here, with the node's own reason."""
        if all(task.runtime == "process" for task in spec.tasks.values()):
            return
        nodes = await self._nodes()
        problems = [
            Problem(f"tasks.{name}.runtime", f"this machine cannot run {task.runtime}: {why}")
            for name, task in spec.tasks.items()
            if (why := _why_not(nodes, task.runtime)) is not None
        ]
        if problems:
            raise InvalidDocument(problems)

    async def _nodes(self) -> list[NodeView]:
        until_s = time.monotonic() + _PATIENCE_S
        while True:
            try:
                nodes = self._leader.opinion(lambda pool: pool.nodes_view())
            except Unavailable:  # it has just lost its place: the submission itself is refused then
                return []
            found = [node for node in nodes if node.state == "ready"]
            if found or time.monotonic() > until_s:
                return found
            await asyncio.sleep(_LOOK_AGAIN_S)


def _why_not(nodes: list[NodeView], runtime: str) -> str | None:
    """None where a node can, or where none is there that would know."""
    reasons = [node.runtimes.get(runtime) for node in nodes]
    return reasons[0] if reasons and all(reason is not None for reason in reasons) else None
