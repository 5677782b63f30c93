"""What Towline is compared with, each in a fresh Python of its own: a bare loop, and HyperQueue."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from msgspec import Struct

_LOOP = """
import json, os, resource, sys, time
begin = time.perf_counter()
for _ in range(int(sys.argv[1])):
    os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0)
wall_s = time.perf_counter() - begin
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"wall_s": wall_s, "cpu_s": sum(u.ru_utime + u.ru_stime for u in used)}))
"""

# A worker of 2 cores and 0.05 of one a task: 40 at a time, as with Towline. Its defaults keep each
# task's output in files, as Towline does. The clock runs from before the submission to its end.
_HYPERQUEUE = """
import json, os, resource, sys, time
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.ffi.protocol import ResourceRequest

count, folder, kind = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.chdir(folder)
with LocalCluster(folder + "/server", WorkerConfig(cores=2)) as cluster:
    client = cluster.client()
    def run(count, layers):
        begin = time.perf_counter()
        job, before = Job(max_fails=None), []
        for _ in range(layers):
            before = [
                job.program(["/bin/true"], deps=before, resources=ResourceRequest(cpus=0.05))
                for _ in range(count // layers)
            ]
        client.wait_for_jobs([client.submit(job)])
        return time.perf_counter() - begin
    run(40, 1)  # warm
    wall_s = run(count, {"flat": 1, "layers": 10, "chain": count}[kind])
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"wall_s": wall_s, "cpu_s": sum(u.ru_utime + u.ru_stime for u in used)}))
"""


class Took(Struct, kw_only=True):
    """Seconds by the clock, and CPU seconds of the program with all that it started."""

    wall_s: float
    cpu_s: float


def posix_spawn(count: int) -> Took:
    """``true``, one after another, by os.posix_spawn and os.waitpid."""
    return _run(_LOOP, str(count))


def hyperqueue(count: int, kind: str = "flat") -> Took:
    """``true`` in a single-node HyperQueue, 40 at a time. ``kind``: flat; layers (10, each needing
    all of the one before); chain."""
    folder = tempfile.mkdtemp(prefix="tow-bench-hq-")
    try:
        return _run(_HYPERQUEUE, str(count), str(Path(folder).resolve()), kind)
    finally:
        shutil.rmtree(folder)


def _run(program: str, *arguments: str) -> Took:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"the compared program failed: {done.stderr[-2000:]}")
    return Took(**json.loads(done.stdout.strip().splitlines()[-1]))
