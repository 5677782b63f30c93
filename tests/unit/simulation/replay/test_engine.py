"""Workloads in virtual time, small enough to work them out by hand."""

from __future__ import annotations

from itertools import pairwise

from towline.core.commands import AttemptKey, Cancel, SetQueue
from towline.core.rows import GpuDevice, NodeRow
from towline.model.job import Array, Backoff, Gpu, JobSpec, Need, Resources, Retries, TaskSpec
from towline.simulation.described.cluster import RUNTIMES
from towline.simulation.described.policies import Setup
from towline.simulation.replay.engine import replay
from towline.simulation.replay.record import Record
from towline.simulation.replay.report import percentile, report
from towline.simulation.replay.samples import Sampler, fairness
from towline.simulation.replay.workload import Ending, Submission, Workload
from towline.simulation.traces.inflation import empty_pool


def node(cpus: int, gpus: int = 0, name: str = "n0") -> NodeRow:
    devices = tuple(GpuDevice(id=str(at), model="T4", memory_bytes=2**30) for at in range(gpus))
    return NodeRow(
        id=name,
        name=name,
        instance="i",
        state="ready",
        cpu_milli=cpus * 1000,
        memory_bytes=2**40,
        pids=1000,
        labels={},
        runtimes=RUNTIMES,
        gpus=devices,
    )


def task(cpus: int = 1, *, needs: tuple[Need, ...] = (), size: int | None = None, **more: object) -> TaskSpec:
    return TaskSpec(
        image="x",
        resources=Resources(cpu_milli=cpus * 1000, memory_bytes=2**20, pids=1, gpu=more.pop("gpu", None)),  # type: ignore[arg-type]
        needs=needs,
        array=None if size is None else Array(first=0, last=size - 1),
        **more,  # type: ignore[arg-type]
    )


def submission(
    at_s: int, name: str, queue: str = "default", owner: str = "", **tasks: TaskSpec
) -> Submission:
    return Submission(at_s * 1000, name, JobSpec(name=name, tasks=tasks, queue=queue), owner or queue)


def run(
    submissions: list[Submission],
    nodes: list[NodeRow],
    lengths_s: dict[str, int],
    setup: Setup | None = None,
    **more: object,
) -> Record:
    """``lengths_s`` by job; what stands for all attempts of it."""

    def ending(key: AttemptKey) -> Ending:
        return Ending(lengths_s[key[0]] * 1000)

    workload = Workload(submissions, more.pop("ending", ending), **more)  # type: ignore[arg-type]
    chosen = setup or Setup("own")
    return replay(workload, nodes, chosen, chosen.rules([]))


def waits_s(record: Record) -> list[float]:
    return [start.wait_ms / 1000 for start in record.starts]


def test_a_wait_begins_when_what_is_needed_has_succeeded() -> None:
    tasks = {
        "a": task(2, size=2),
        "b": task(1, needs=(Need(task="a"),)),
        "c": task(1, size=2, needs=(Need(task="a", each=True),)),
    }
    record = run([submission(0, "j", **tasks)], [node(2)], {"j": 10})
    # a.0 from 0, c.0 from 10 (beside which a.1 has no room), a.1 from 20, b and c.1 from 30.
    assert waits_s(record) == [0, 0, 20, 0, 0] and record.ended_ms == 40_000
    assert report(record).started == 5 and report(record).unfinished_jobs == 0


def test_retries_come_back_after_their_backoff_and_count_once() -> None:
    retries = Retries(limit=1, backoff=Backoff(first_ms=5000, jitter=0.0))

    def ending(key: AttemptKey) -> Ending:
        return Ending(10_000, exit_code=1 if key[3] == 1 else 0)

    record = run([submission(0, "j", a=task(retries=retries))], [node(1)], {}, ending=ending)
    assert waits_s(record) == [0] and record.ended_ms == 25_000
    assert report(record).utilisation == 0.8


def test_a_cancelled_job_gives_its_place_back_at_once() -> None:
    jobs = [submission(0, "a", t=task(size=3)), submission(1, "b", t=task())]
    record = run(jobs, [node(1)], {"a": 100, "b": 5}, cancels=[(20_000, Cancel(job="a"))])
    assert waits_s(record) == [0, 19] and record.ended_ms == 25_000


def test_what_never_fits_is_told() -> None:
    record = run([submission(0, "a", t=task(8)), submission(0, "b", t=task(1))], [node(2)], {"b": 5})
    told = report(record)
    assert (told.started, told.elements, told.unfinished_jobs) == (1, 2, 1)


def test_queues_of_a_policy_share_by_their_weights() -> None:
    jobs = [submission(0, name, queue=name, t=task(size=400)) for name in ("a", "b")]
    queues = (SetQueue(name="a", weight_milli=3000), SetQueue(name="b"))
    record = run(jobs, [node(8)], {"a": 10, "b": 10}, Setup("shares", queues=queues))
    held = [sample for sample in record.samples if sample.queues is not None]
    assert len(held) > 100 and all(sample.queues.deviation < 0.01 for sample in held if sample.queues)
    told = report(record).fairness_between_queues
    assert told is not None and told.jain > 0.99


def test_gpus_and_what_is_left_of_them() -> None:
    jobs = [submission(0, "half", t=task(gpu=Gpu(milli=500))), submission(1, "two", t=task(gpu=Gpu(count=2)))]
    told = report(run(jobs, [node(4, gpus=2)], {"half": 11, "two": 10}))
    # Half a device of two for 11 s, then both for 10 s; while the half is held, nothing fits the other job.
    assert told.gpu_allocation == round((0.25 * 11 + 10) / 21, 3)
    assert told.gpu_fragmentation == 0.5
    assert told.max_wait_s == 10


def test_percentiles_and_fairness_by_hand() -> None:
    assert [percentile([1, 2, 3, 4], percent) for percent in (50, 95, 100)] == [2, 4, 4]
    assert percentile([], 50) == 0
    even, one = fairness([0.2, 0.2], [1, 1]), fairness([0.4, 0.0], [1, 1])
    assert even is not None and one is not None
    assert (even.jain, even.deviation) == (1.0, 0.0)
    assert (one.jain, one.deviation) == (0.5, 0.2)
    weighted = fairness([0.3, 0.1], [0.75, 0.25])
    assert weighted is not None and abs(weighted.jain - 1) < 1e-9
    assert fairness([0.0, 0.0], [1, 1]) is None


def test_samples_stay_few_and_equally_far_apart() -> None:
    workload = Workload([submission(0, "a", t=task())], lambda key: Ending(1))
    sampler = Sampler(empty_pool(), workload, 0)
    for at_s in range(0, 100_000, 7):
        sampler.pass_time(at_s * 1000)
    times = [sample.at_ms for sample in sampler.samples]
    assert 1000 < len(times) < 2048
    assert len({after - before for before, after in pairwise(times)}) == 1
