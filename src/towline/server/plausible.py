"""What a node may say of itself. One in the wrong hands may say anything: with numbers that the pool cannot
add up or keep, no commit would succeed again."""

from __future__ import annotations

from towline.core.rows import NodeRow
from towline.wire.messages import Hello

MOST_MILLI_CPUS = 10**9
MOST_BYTES = 2**50
MOST_PIDS = 2**32
MOST_MS = 2**53
MAX_NAME = 253


def implausible(hello: Hello) -> str | None:
    """What of it no node can have; None where all is well."""
    if not 0 < len(hello.name) <= MAX_NAME or not hello.name.isprintable():
        return f"its name is {hello.name[:100]!r}: 1 to {MAX_NAME} printable characters are allowed"
    amounts = {
        "cpu_milli": (hello.cpu_milli, MOST_MILLI_CPUS),
        "memory_bytes": (hello.memory_bytes, MOST_BYTES),
        "disk_bytes": (hello.disk_bytes, MOST_BYTES),
        "pids": (hello.pids, MOST_PIDS),
        "sent_boottime_ms": (hello.sent_boottime_ms, MOST_MS),
        **{f"memory_bytes of GPU {gpu.id[:100]}": (gpu.memory_bytes, MOST_BYTES) for gpu in hello.gpus},
    }
    for what, (amount, most) in amounts.items():
        if not 0 <= amount <= most:
            return f"its {what} is {amount}: 0 to {most} is possible"
    return None


def node_row(hello: Hello) -> NodeRow:
    """What it says, as its leader keeps it."""
    return NodeRow(
        id=hello.node,
        name=hello.name,
        instance=hello.instance,
        state="ready",
        cpu_milli=hello.cpu_milli,
        memory_bytes=hello.memory_bytes,
        pids=hello.pids,
        labels=hello.labels,
        runtimes=hello.runtimes,
        gpus=hello.gpus,
        taints=hello.taints,
        protects=hello.protects,
        disk_bytes=hello.disk_bytes,
        boot_id=hello.boot_id,
        said_ms=hello.sent_boottime_ms,
    )
