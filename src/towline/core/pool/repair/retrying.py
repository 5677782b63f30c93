"""The command that runs parts of a job again, from what it brings to what it answers."""

from __future__ import annotations

from towline.core import graph
from towline.core.commands import Retry
from towline.core.pool.repair import rerun
from towline.core.pool.repair.applying import names_of, revive, run_again
from towline.core.pool.repair.checking import check, check_named, nothing_again, standings, wanted_of
from towline.core.pool.state import PoolState
from towline.core.rows import KeyRow
from towline.errors import Conflict, Outdated


def retry(pool: PoolState, command: Retry) -> tuple[str, ...]:
    """Returns what runs again, by name. Raises RequestError, with nothing changed."""
    record = command.record
    if record.term != pool.term:
        raise Outdated(f"the record of job {command.job} was read under another leader")
    if record.taken is not None:
        if record.taken != command.digest:
            raise Conflict(f"Idempotency-Key {command.key!r} was used for another request: use a new one")
        return ()
    job = pool.jobs.get(command.job)
    check(pool, job, record)
    tasks = standings(job, record)
    wanted = wanted_of(command, tasks)
    edges = graph.build(record.spec.spec)
    again = rerun.choose(edges, tasks, wanted, failed_only=command.failed_only)
    check_named(command, tasks, again)
    if all(part.names_nothing for part in again):
        return nothing_again(job, command)
    if job is None:
        job = revive(pool, record)
    run_again(pool, job, again, command)
    if command.key is not None:
        pool.batch.keys.append(
            KeyRow(
                namespace=job.row.namespace,
                key=command.key,
                digest=command.digest,
                job=job.row.id,
                created_at=pool.now_ms,
            )
        )
    return tuple(name for task, part in zip(job.tasks, again, strict=True) for name in names_of(task, part))
