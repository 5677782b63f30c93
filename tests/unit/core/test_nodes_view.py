"""What is shown of nodes: their devices and what is free of each, taints, protections."""

from __future__ import annotations

import msgspec
from tests.unit.core.driver import Driver, node_row, task

from towline.core.commands import NodeUp, Submit
from towline.core.pool import Pool
from towline.core.rows import GpuDevice, PoolSnapshot
from towline.model.job import Gpu, JobSpec, Resources
from towline.model.views import GpuView

GPUS = (
    GpuDevice(id="0", model="A100", memory_bytes=40 * 2**30),
    GpuDevice(id="1", model="A100", memory_bytes=40 * 2**30),
    GpuDevice(id="m", model="A100", memory_bytes=5 * 2**30, slice="1g.5gb"),
)


def asking(gpu: Gpu) -> Resources:
    return Resources(cpu_milli=1, memory_bytes=1, pids=1, gpu=gpu)


def free(driver: Driver) -> list[int]:
    return sorted(gpu.free_milli for gpu in driver.pool.nodes_view()[0].gpus)


def test_devices_are_shown_with_what_is_free_of_each() -> None:
    driver = Driver(msgspec.structs.replace(node_row(), gpus=GPUS))
    (node,) = driver.pool.nodes_view()
    assert node.gpus == [
        GpuView(id=gpu.id, model=gpu.model, memory_bytes=gpu.memory_bytes, slice=gpu.slice, free_milli=1000)
        for gpu in GPUS
    ]
    driver.submit("j1", a=task(resources=asking(Gpu(milli=300))))
    driver.submit("j2", a=task(resources=asking(Gpu())))
    driver.submit("j3", a=task(resources=asking(Gpu(slice="1g.5gb"))))
    assert free(driver) == [0, 0, 700]
    driver.reload()
    assert free(driver) == [0, 0, 700]
    driver.exit("j2-0-0-1")
    assert free(driver) == [0, 700, 1000]


def test_taints_protections_and_disk_are_shown() -> None:
    row = msgspec.structs.replace(
        node_row(), taints=("team=ml",), protects={"process": ("memory",)}, disk_bytes=2**30
    )
    (node,) = Driver(row).pool.nodes_view()
    assert (node.taints, node.protects, node.disk_bytes) == (["team=ml"], {"process": ["memory"]}, 2**30)


def test_what_is_shown_says_its_pool() -> None:
    pool = Pool.load(PoolSnapshot(pool="gpu", term=1, commit_no=0, event_no=0, job_seq=0), 0)
    spec = JobSpec(name="j", tasks={"a": task()})
    for command in (NodeUp(node=node_row()), Submit(job="j1", namespace="default", spec=spec)):
        pool.apply(command, 1)
    changes, _ = pool.collect()
    assert [row.pool for row in changes.jobs] == ["gpu"]
    assert [node.pool for node in pool.nodes_view()] == ["gpu"]
    assert [queue.pool for queue in pool.queues_view()] == ["gpu"]
