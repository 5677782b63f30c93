"""A batch log (``swf.py``) as a workload: rigid jobs of one element each.

Each record asks for its processors, has its requested time as its timeout, and ends after its run time.
Users are task names in one namespace, so that lengths are learnt by user and no user's past stands
before age.
"""

from __future__ import annotations

from collections.abc import Sequence

from towline.core.commands import AttemptKey, SetQueue
from towline.core.queues.tree import DEFAULT
from towline.core.rows import NodeRow
from towline.model.job import JobSpec, Resources, TaskSpec
from towline.simulation.described.cluster import RUNTIMES, Cluster, Group
from towline.simulation.replay.workload import Ending, Submission, Workload
from towline.simulation.traces.swf import SwfJob

_SECOND_MS = 1000
_CPU_MILLI = 1000


def workload_of(jobs: Sequence[SwfJob], queue: str = DEFAULT, left_out: int = 0) -> Workload:
    """``jobs`` in the order of their submission. A job's id is its place in them."""

    def ending(key: AttemptKey) -> Ending:
        return Ending(jobs[int(key[0])].run_s * _SECOND_MS)

    submissions = [_submission(at, job, queue) for at, job in enumerate(jobs)]
    queues = [] if queue == DEFAULT else [SetQueue(name=queue)]
    return Workload(submissions, ending, queues=queues, left_out=left_out)


def _submission(at: int, job: SwfJob, queue: str) -> Submission:
    task = TaskSpec(
        image="oci:trace",
        resources=Resources(cpu_milli=job.size * _CPU_MILLI, memory_bytes=1, pids=1),
        timeout_ms=max(job.requested_s, 1) * _SECOND_MS,
    )
    owner = f"user-{job.user}"
    spec = JobSpec(name="swf", tasks={owner: task}, queue=queue)
    return Submission(job.submitted_s * _SECOND_MS, str(at), spec, owner)


def one_machine(processors: int) -> Cluster:
    """One node of so many processors."""
    node = NodeRow(
        id="machine",
        name="machine",
        instance="simulated",
        state="ready",
        cpu_milli=processors * _CPU_MILLI,
        memory_bytes=2**50,
        pids=2**30,
        labels={},
        runtimes=RUNTIMES,
    )
    return Cluster([Group("machine", [node])])


def largest(cluster: Cluster) -> int:
    """Processors of the largest node: no job of a log can be larger. It tolerates no taint."""
    return max((node.cpu_milli // _CPU_MILLI for node in cluster.nodes if not node.taints), default=0)
