"""An image that attempts wait for, as the API shows it, and as people read it."""

from __future__ import annotations

from msgspec import Struct

ASKING, PULLING, UNPACKING = "asking", "pulling", "unpacking"
"""Steps of a pull."""
_MB = 1_000_000


class PullingView(Struct, kw_only=True):
    """``step`` is asking (the registry), pulling or unpacking. ``total_bytes`` is null until it is known;
    ``seconds`` since it began; ``tasks`` of the job wait for it on the node, which is named."""

    image: str
    node: str
    tasks: list[str]
    step: str
    arrived_bytes: int
    total_bytes: int | None
    seconds: float


def pull_text(view: PullingView) -> str:
    """``pulling docker.io/library/debian:12: 84 of 208 MB, 12 s``."""
    since = f"{view.seconds:.0f} s"
    if view.step == ASKING:
        return f"asking the registry for {view.image}, {since}"
    if view.step == UNPACKING:
        return f"unpacking {view.image}, {since}"
    if view.total_bytes is None:
        return f"pulling {view.image}: {_mb(view.arrived_bytes)} MB, {since}"
    return f"pulling {view.image}: {_mb(view.arrived_bytes)} of {_mb(view.total_bytes)} MB, {since}"


def _mb(count: int) -> str:
    return f"{count / _MB:.1f}" if count < 10 * _MB else f"{count / _MB:.0f}"
