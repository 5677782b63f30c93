"""Conditions, taints, protections, and the words for nodes that do not fit."""

from __future__ import annotations

import pytest
from tests.unit.core.placement.nodes_made import GIB, gpus, nodes_of, row, shape

from towline.core.placement.filters.conditions import holds, is_model
from towline.core.placement.filters.misfits import misfits_text
from towline.core.placement.nodes import Nodes
from towline.core.placement.shape import Shape
from towline.core.rows import GpuDevice, NodeRow
from towline.model.job import Condition, Gpu


def condition(key: str, op: str = "=", *values: str) -> Condition:
    return Condition(key=key, op=op, values=values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("op", "asked", "values", "expected"),
    [
        ("=", ("a",), ("a",), True),
        ("=", ("a",), (), False),
        ("!=", ("a",), (), True),
        ("!=", ("a",), ("b", "a"), False),
        ("in", ("a", "b"), ("b",), True),
        ("not in", ("a", "b"), ("b",), False),
        ("exists", (), ("",), True),
        ("absent", (), (), True),
        (">=", ("64",), ("64",), True),
        (">=", ("64",), ("9",), False),
        ("<", ("10",), ("9.5",), True),
        ("<", ("-1",), ("-1.0",), False),
        (">", ("8",), ("64Gi",), False),
        ("<=", ("8",), ("few",), False),
        ("<=", ("8",), (), False),
    ],
)
def test_what_a_condition_means(
    op: str, asked: tuple[str, ...], values: tuple[str, ...], expected: bool
) -> None:
    assert holds(condition("label", op, *asked), values) is expected


def test_a_model_is_named_in_full_or_by_its_words() -> None:
    model = "NVIDIA A100-SXM4-40GB"
    assert all(is_model(asked, model) for asked in (model, "A100", "a100", "A100-SXM4", "A100 SXM4"))
    assert not any(is_model(asked, model) for asked in ("A10", "SXM4 A100", "100", "", "A100-PCIE"))


def fitting(nodes: Nodes, asked: Shape) -> list[str]:
    return [nodes.entries[column].row.name for column, _ in nodes.room(asked)]


def test_keys_that_are_no_labels() -> None:
    nodes = nodes_of(
        row("n0", gpus=gpus("A100", "T4")),
        row("n1", gpus=gpus("T4"), runtimes={"process": None, "oci": None}),
        row("n2", labels={"site": "here"}),
    )
    for key, op, values, names in (
        ("node", "=", ("n1",), ["n1"]),
        ("node", "=", ("id-n1",), ["n1"]),
        ("node", "!=", ("n1",), ["n2", "n0"]),
        ("site", "exists", (), ["n2"]),
        ("runtime", "=", ("oci",), ["n1"]),
        ("gpu.model", "=", ("A100",), ["n0"]),
        ("gpu.model", "!=", ("T4",), ["n2"]),
        ("gpu.model", "absent", (), ["n2"]),
        ("gpu.memory", ">=", ("16",), ["n0", "n1"]),
        ("gpu.memory", ">", ("16",), []),
    ):
        assert fitting(nodes, shape(where=(condition(key, op, *values),))) == names, (key, op)


def test_a_condition_on_gpus_is_about_those_that_it_gets() -> None:
    nodes = nodes_of(row("n0", gpus=gpus("A100", "T4", "T4")))
    asked = shape(gpu=Gpu(), where=(condition("gpu.model", "!=", "T4"),))
    assert nodes.room(asked) == [(0, 1)]
    assert nodes.take(0, asked, 1) == ["0"]
    assert nodes.room(asked) == []
    assert nodes.room(shape(gpu=Gpu())) == [(0, 2)]


def test_tolerations_name_a_key_or_a_key_and_its_value() -> None:
    nodes = nodes_of(row("n0", taints=("gpu=yes",)), row("n1", taints=("gpu=no", "old")), row("n2"))
    assert fitting(nodes, shape()) == ["n2"]
    assert fitting(nodes, shape(tolerate=("gpu",))) == ["n0", "n2"]
    assert fitting(nodes, shape(tolerate=("gpu=no", "old"))) == ["n1", "n2"]
    assert nodes.first_misfit(shape(tolerate=("gpu=yes",)), 1) == "taint gpu=no, old not tolerated"


def said(asked: Shape, *rows: NodeRow) -> str:
    return misfits_text(nodes_of(*rows).misfits(asked))


def test_nodes_are_grouped_by_what_they_lack() -> None:
    full = [row(f"n{at}", cpu_milli=2000) for at in range(5)]
    nodes = nodes_of(*full, *(row(f"z{at}", labels={"zone": "a"}) for at in range(3)))
    for at in range(5):
        nodes.take(at, shape(500 + 100 * at), 1)
    asked = shape(2000, where=(condition("zone", "!=", "a"),))
    assert misfits_text(nodes.misfits(asked)) == (
        "5 nodes: 2 CPUs asked, at most 1.5 CPUs free; 3 nodes: label zone!=a wanted, is a"
    )


def test_the_words_for_each_reason() -> None:
    assert said(shape(memory_bytes=64 * GIB), row()) == "1 node: 64 GiB asked, the node has 32 GiB"
    assert said(shape(disk_bytes=GIB), row(disk_bytes=2**20)) == (
        "1 node: 1 GiB of disk asked, the node has 1 MiB of disk"
    )
    assert said(shape(runtime="oci"), row()) == "1 node: cannot run the oci runtime: crun is not installed"
    assert said(shape(require=("userns", "disk")), row(protects={"process": ("disk",)})) == (
        "1 node: userns required, which the process runtime does not give here"
    )
    assert said(shape(), row(state="lost")) == "1 node: the node is lost"
    assert said(shape(where=(condition("ssd", "exists"),)), row()) == (
        "1 node: label ssd wanted to be set, is not set"
    )


def test_the_words_for_gpus() -> None:
    assert said(shape(gpu=Gpu()), row()) == "1 node: 1 GPU asked, the node has none"
    node = row(gpus=gpus("T4", "T4"))
    assert said(shape(gpu=Gpu(count=3)), node) == "1 node: 3 GPUs asked, the node has 2"
    assert said(shape(gpu=Gpu(model=("A100", "H100"))), node) == (
        "1 node: 1 GPU A100 or H100 asked, the node has T4 with 16 GiB"
    )
    assert said(shape(gpu=Gpu(memory_bytes=20 * GIB)), node) == (
        "1 node: 1 GPU with 20 GiB asked, the node has T4 with 16 GiB"
    )
    assert said(shape(gpu=Gpu(slice="1g.5gb", count=2)), node) == (
        "1 node: 2 slices 1g.5gb asked, the node has T4 with 16 GiB"
    )
    nodes = nodes_of(node)
    nodes.take(0, shape(gpu=Gpu(milli=700)), 2)
    assert misfits_text(nodes.misfits(shape(gpu=Gpu(milli=500)))) == (
        "1 node: 0.5 of a GPU asked, 0.3 of one free"
    )
    assert misfits_text(nodes.misfits(shape(gpu=Gpu()))) == "1 node: 1 GPU asked, 0 free"


def test_a_long_tail_of_reasons_is_summed_up() -> None:
    rows = [row(f"n{at}", labels={"zone": f"z{at}"}) for at in range(9)]
    found = nodes_of(*rows).misfits(shape(where=(condition("zone", "=", "b"),)))
    assert [misfit.nodes for misfit in found] == [6, 1, 1, 1]
    assert all(misfit.permanent for misfit in found)


def test_a_device_that_has_left_is_given_back_all_the_same() -> None:
    nodes = nodes_of(row("n0", gpus=gpus("T4", "T4")))
    asked = shape(gpu=Gpu())
    assert nodes.take(0, asked, 2) == ["0", "1"]
    nodes.entries[0].row.gpus = (GpuDevice(id="1", model="T4", memory_bytes=GIB),)
    nodes.refresh(nodes.entries[0])
    nodes.give(0, asked, "0")
    assert nodes.room(asked) == []
    nodes.give(0, asked, "1")
    assert nodes.room(asked) == [(0, 1)]
