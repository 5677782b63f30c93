"""Short ways to make jobs for tests: `job_spec(a=task(), b=task(needs="a", array=10))`.

Imported as ``from tests.builders import job_spec, task``.
"""

from __future__ import annotations

from typing import Any

from towline.model.job import Array, Backoff, JobSpec, Need, Resources, Retries, TaskSpec


def task(
    *command: str,
    needs: str | tuple[str | Need, ...] | list[str | Need] = (),
    array: int | tuple[int, int] | list[str] | None = None,
    cpu: float | None = None,
    memory: int | None = None,
    retries: int = 0,
    lost: int = 3,
    backoff_ms: int = 1_000,
    **fields: Any,
) -> TaskSpec:
    """A task of plain processes that runs ``command`` (``true`` by default).

    ``array`` is a count, ``(first, last)`` or values; ``cpu`` is in CPUs, ``memory`` in bytes; every
    other field of TaskSpec may be given by its own name. The backoff of retries has no jitter.
    """
    fields.setdefault("runtime", "oci" if "image" in fields else "process")
    fields.setdefault("command", command or ("true",))
    fields.setdefault("resources", resources(cpu, memory))
    fields.setdefault(
        "retries",
        Retries(limit=retries, lost=lost, backoff=Backoff(first_ms=backoff_ms, jitter=0.0)),
    )
    needed = (needs,) if isinstance(needs, str) else needs
    return TaskSpec(
        needs=tuple(need if isinstance(need, Need) else Need(task=need) for need in needed),
        array=_array(array),
        **fields,
    )


def each(name: str) -> Need:
    """A need of element i for element i."""
    return Need(task=name, each=True)


def resources(cpu: float | None = None, memory: int | None = None) -> Resources:
    return Resources(
        cpu_milli=1_000 if cpu is None else round(cpu * 1_000),
        memory_bytes=16 * 1024**2 if memory is None else memory,
        pids=16,
    )


def _array(array: int | tuple[int, int] | list[str] | None) -> Array | None:
    if array is None:
        return None
    if isinstance(array, int):
        return Array(first=0, last=array - 1)
    if isinstance(array, tuple):
        return Array(first=array[0], last=array[1])
    return Array(first=0, last=len(array) - 1, values=tuple(array))


def job_spec(name: str = "job", priority: int = 50, **tasks: TaskSpec) -> JobSpec:
    """A job of these tasks, in their order; without any, of one task ``main`` that runs ``true``."""
    return JobSpec(name=name, priority=priority, tasks=tasks or {"main": task()})


def chain(length: int, **fields: Any) -> JobSpec:
    """Tasks ``t0`` to ``t{length-1}``, each needing the one before."""
    return job_spec(
        "chain",
        **{f"t{at}": task(needs=(f"t{at - 1}",) if at else (), **fields) for at in range(length)},
    )


def layers(count: int, width: int, **fields: Any) -> JobSpec:
    """``count`` layers of ``width`` tasks, each task needing all of the layer before."""
    tasks: dict[str, TaskSpec] = {}
    for layer in range(count):
        before = tuple(f"l{layer - 1}t{at}" for at in range(width)) if layer else ()
        for at in range(width):
            tasks[f"l{layer}t{at}"] = task(needs=before, **fields)
    return job_spec("layers", **tasks)
