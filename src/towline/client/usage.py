"""What running elements use, and from two looks the CPUs that they used in between."""

from __future__ import annotations

from msgspec import structs

from towline.client.api import Client
from towline.model.views import ElementUsageView, NodeUsageView, UsageView


async def usage(
    client: Client,
    job: str | None = None,
    task: str | None = None,
    index: int | None = None,
    *,
    pool: str | None = None,
) -> UsageView:
    """What is used now by all that runs, in one pool or in all, or by a job, task or element. Raises
    NotFound."""
    return await client.get(UsageView, "/v1/usage", job=job, task=task, index=index, pool=pool)


def between(before: UsageView, after: UsageView) -> UsageView:
    """``after`` with ``cpu`` filled in. An element that was not there before has that since its start."""
    nodes = {node.id: node for node in before.nodes}
    spans = {node.name: _span_s(nodes.get(node.id), node) for node in after.nodes}
    earlier = {_key(element): element for element in before.elements}
    return UsageView(
        nodes=[_node(nodes.get(node.id), node) for node in after.nodes],
        elements=[
            _element(earlier.get(_key(element)), element, spans.get(element.node))
            for element in after.elements
        ],
        interval_seconds=max((span for span in spans.values() if span is not None), default=None),
    )


def _key(element: ElementUsageView) -> tuple[str, str, int, int, str]:
    return element.job, element.task, element.index, element.attempt, element.node


def _span_s(before: NodeUsageView | None, after: NodeUsageView) -> float | None:
    """By the node's own clock; None where it is not known, or the node was started anew."""
    if before is None or before.error is not None or after.error is not None:
        return None
    span_s = after.clock_seconds - before.clock_seconds
    return span_s if span_s > 0 else None


def _node(before: NodeUsageView | None, after: NodeUsageView) -> NodeUsageView:
    span_s = _span_s(before, after)
    if before is None or span_s is None:
        return after
    return structs.replace(after, cpu=max(0.0, after.cpu_seconds - before.cpu_seconds) / span_s)


def _element(
    before: ElementUsageView | None, after: ElementUsageView, span_s: float | None
) -> ElementUsageView:
    if after.cpu_seconds is None:
        return after
    used_s = after.cpu_seconds
    if before is not None and before.cpu_seconds is not None:
        used_s -= before.cpu_seconds
    else:
        span_s = after.run_seconds
    return after if not span_s else structs.replace(after, cpu=max(0.0, used_s) / span_s)
