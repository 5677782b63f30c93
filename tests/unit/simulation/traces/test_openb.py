"""Reading openb's CSV pair, and the inflation experiment."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towline.errors import InvalidDocument
from towline.simulation.traces.openb import (
    OpenbNode,
    OpenbPod,
    allocation_at,
    arrived_percent,
    capacity_gpu_milli,
    inflated,
    read_nodes,
    read_pods,
)

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn1,8000,1024,2,T4\nn0,4000,512,0,\n"
PODS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\n"
    "p1,1000,64,1,500,V100M32|A10,LS\n"
    "p0,2000,0,2,1000,,BE\n"
    "p2,500,32,0,0,,BE\n"
)


def test_nodes_and_pods_are_read_by_name(tmp_path: Path) -> None:
    nodes, pods = tmp_path / "nodes.csv", tmp_path / "pods.csv.gz"
    nodes.write_text(NODES)
    pods.write_bytes(gzip.compress(PODS.encode()))
    assert read_nodes(nodes) == [OpenbNode("n0", 4000, 512, 0, ""), OpenbNode("n1", 8000, 1024, 2, "T4")]
    assert read_pods(pods) == [
        OpenbPod("p0", 2000, 0, 2, 1000, ()),
        OpenbPod("p1", 1000, 64, 1, 500, ("A10", "V100M32")),
        OpenbPod("p2", 500, 32, 0, 0, ()),
    ]


def test_without_the_column_of_models_any_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    path.write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,2,1,1000\n")
    assert read_pods(path) == [OpenbPod("p", 1, 2, 1, 1000, ())]


def test_what_is_wrong_is_said_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pods.csv"
    path.write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,x,2,1,1000\nq,1,2,2,500\nr,1,2,1\n")
    with pytest.raises(InvalidDocument) as refused:
        read_pods(path)
    found = sorted((problem.line or 0, problem.where) for problem in refused.value.problems)
    assert found == [(2, "cpu_milli"), (3, "gpu_milli"), (4, "gpu_milli"), (4, "gpu_milli")]
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InvalidDocument, match="has no column 'sn'"):
        read_nodes(path)


cluster = [OpenbNode(f"n{at}", 64_000, 1024, 4, "T4") for at in range(5)]
pods_of = st.lists(st.sampled_from([(0, 0), (1, 500), (1, 1000), (4, 1000)]), min_size=1, max_size=40).filter(
    lambda found: any(count for count, _ in found)
)


@settings(deadline=None)
@given(pods_of, st.integers(0, 1000))
def test_pods_are_inflated_up_to_the_demand(found: list[tuple[int, int]], seed: int) -> None:
    pods = [OpenbPod(f"p{at:03}", 1000, 10, count, milli, ()) for at, (count, milli) in enumerate(found)]
    nodes, coming = inflated(cluster, pods, seed)
    capacity = capacity_gpu_milli(cluster)
    assert capacity == 20_000
    asked = sum(pod.total_gpu_milli for pod in coming)
    assert asked <= 26_000
    assert sorted(nodes) == cluster
    assert set(coming) <= set(pods)
    if sum(pod.total_gpu_milli for pod in pods) <= 26_000:
        assert sorted(coming[: len(pods)]) == pods
        assert asked > 26_000 - max(pod.total_gpu_milli for pod in pods)
    else:
        assert len(coming) < len(pods)
        assert len(set(coming)) == len(coming)
    assert inflated(cluster[::-1], pods[::-1], seed) == (nodes, coming)


def test_seeds_differ() -> None:
    pods = [OpenbPod(f"p{at}", 1000, 10, 1, 1000, ()) for at in range(10)]
    assert inflated(cluster, pods, 1) != inflated(cluster, pods, 2)
    with pytest.raises(ValueError, match="no pod asks for a GPU"):
        inflated(cluster, [OpenbPod("p", 1, 1, 0, 0, ())], 1)


def test_allocation_is_the_mean_over_the_pods_at_that_demand() -> None:
    pods = [OpenbPod("p", 1, 1, 1, milli, ()) for milli in (494, 1, 10, 485, 0, 10)]
    arrived = arrived_percent(pods, 1000)
    assert arrived == [49, 50, 51, 99, 99, 100]
    assert arrived_percent([OpenbPod("p", 1, 1, 1, 5, ())], 1000) == [1]
    assert allocation_at(99, arrived, [0, 0, 0, 100, 300, 0], 1000) == 20.0
    with pytest.raises(ValueError, match="never was 98 %"):
        allocation_at(98, arrived, [0] * 6, 1000)
