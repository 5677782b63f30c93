"""Two looks make a rate."""

from __future__ import annotations

from msgspec import structs

from towline.client.usage import between
from towline.model.views import ElementUsageView, NodeUsageView, UsageView

NODE = NodeUsageView(id="n1", name="one", clock_seconds=100.0, cpus=2, cpu_seconds=50.0)
ELEMENT = ElementUsageView(
    name="j/t.0", job="id", task="t", index=0, attempt=1, node="one", run_seconds=10.0, cpu_seconds=4.0,
    cpu_limit=1.0, memory_bytes=1, peak_memory_bytes=2, memory_limit_bytes=3, pids=1, output_bytes=0,
)  # fmt: skip
BEFORE = UsageView(nodes=[NODE], elements=[ELEMENT])


def later(**fields: object) -> ElementUsageView:
    return structs.replace(ELEMENT, **{"cpu_seconds": 7.0, "run_seconds": 12.0, **fields})


def cpu_of(element: ElementUsageView, node: NodeUsageView | None = None) -> float | None:
    node = node or structs.replace(NODE, clock_seconds=102.0, cpu_seconds=53.0)
    after = between(BEFORE, UsageView(nodes=[node], elements=[element]))
    return after.elements[0].cpu


def test_cpu_is_by_the_nodes_own_clock() -> None:
    after = between(
        BEFORE,
        UsageView(nodes=[structs.replace(NODE, clock_seconds=102.0, cpu_seconds=53.0)], elements=[later()]),
    )
    assert (after.interval_seconds, after.nodes[0].cpu, after.elements[0].cpu) == (2.0, 1.5, 1.5)


def test_what_is_new_is_counted_since_its_start() -> None:
    assert cpu_of(later(index=1, cpu_seconds=1.0, run_seconds=0.5)) == 2.0
    assert cpu_of(later(attempt=2, cpu_seconds=1.0, run_seconds=4.0)) == 0.25
    assert cpu_of(later(index=1, run_seconds=None)) is None
    assert cpu_of(later(index=1, run_seconds=0.0)) is None


def test_what_is_not_known_stays_unknown() -> None:
    assert cpu_of(later(cpu_seconds=None)) is None
    assert cpu_of(later(cpu_seconds=3.0)) == 0.0, "processes that have gone take their time along"
    restarted = structs.replace(NODE, clock_seconds=1.0)
    assert cpu_of(later(), restarted) is None
    silent = NodeUsageView(id="n1", name="one", error="no answer")
    assert between(BEFORE, UsageView(nodes=[silent], elements=[])).interval_seconds is None
