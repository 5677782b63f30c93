"""Clusters as files describe them, and with nodes more or fewer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.errors import InvalidDocument
from towline.simulation.described.cluster import (
    Cluster,
    changed,
    grouped,
    read_cluster,
    shared_out,
)

DESCRIBED = """
nodes:
  plain: {count: 3, cpu: 16, memory: 64Gi, labels: {zone: a}}
  gpu:
    cpu: 96
    memory: 768Gi
    gpu: {count: 2, model: A100, memory: 80Gi}
    taints: [gpu]
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    path = tmp_path / "cluster.yaml"
    path.write_text(DESCRIBED)
    return read_cluster(path)


def sizes(cluster: Cluster) -> dict[str, int]:
    return {group.name: len(group.nodes) for group in cluster.groups}


def test_groups_become_nodes(cluster: Cluster) -> None:
    assert [node.name for node in cluster.nodes] == ["plain-0", "plain-1", "plain-2", "gpu-0"]
    plain, gpu = cluster.nodes[0], cluster.nodes[3]
    assert (plain.cpu_milli, plain.memory_bytes, plain.labels) == (16_000, 64 * 2**30, {"zone": "a"})
    assert [(each.id, each.model, each.memory_bytes) for each in gpu.gpus] == [
        ("0", "A100", 80 * 2**30),
        ("1", "A100", 80 * 2**30),
    ]
    assert gpu.taints == ("gpu",)


def test_all_problems_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("nodes:\n  plain: {count: -3, cpu: 16, memory: 64Gu}\n  GPU: {cpus: 96, memory: 1Gi}\n")
    with pytest.raises(InvalidDocument) as found:
        read_cluster(path)
    assert [(problem.line, problem.where) for problem in found.value.problems] == [
        (2, "nodes.plain.memory"),
        (2, "nodes.plain.count"),
        (3, "nodes.GPU.cpus"),
        (3, "nodes.GPU.cpu"),
        (3, "nodes.GPU"),
    ]
    assert found.value.source == str(path)
    assert "did you mean 'cpu'?" in str(found.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), ("[]", "is a list"), ("nodes: {}", "has no group"), ("{", "is not YAML")],
)
def test_what_is_no_cluster_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InvalidDocument, match=said):
        read_cluster(path)
    with pytest.raises(InvalidDocument, match="cannot be read"):
        read_cluster(tmp_path / "missing.yaml")


def test_nodes_more_and_fewer(cluster: Cluster) -> None:
    assert sizes(changed(cluster, {None: -2}, "x")) == {"plain": 1, "gpu": 1}
    assert sizes(changed(cluster, {None: 4}, "x")) == {"plain": 6, "gpu": 2}
    more = changed(cluster, {"gpu": 2, "plain": -3}, "x")
    assert [node.name for node in more.nodes] == ["gpu-0", "gpu-new-1", "gpu-new-2"]
    assert more.nodes[2].gpus == cluster.nodes[3].gpus
    for change, said in (
        ({None: -4}, "leaves no node"),
        ({"gpu": -2}, "takes 1 more nodes of 'gpu' away"),
        ({"gpu": 10**9}, "makes 1,000,000,001 nodes of 'gpu', more than 100,000"),
        ({"tpu": 1}, "no group"),
    ):
        with pytest.raises(InvalidDocument, match=said):
            changed(cluster, change, "--add-nodes")


def test_equal_nodes_are_one_group(cluster: Cluster) -> None:
    assert sizes(grouped(reversed(cluster.nodes))) == {"gpu-0": 1, "plain-2": 3}


@given(st.integers(-50, 50), st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any))
def test_parts_are_whole_and_near_their_proportion(count: int, given_sizes: list[int]) -> None:
    parts = shared_out(count, given_sizes)
    assert sum(parts) == count
    for part, size in zip(parts, given_sizes, strict=True):
        assert abs(part - count * size / sum(given_sizes)) < 1
