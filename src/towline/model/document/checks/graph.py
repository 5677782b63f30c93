"""Checks over the needs of all tasks: names, doubles, ``each``, cycles, inputs."""

from __future__ import annotations

from collections import deque

from towline.model.document.lines import Where
from towline.model.document.reading import Reading
from towline.model.job import JobSpec, Need, TaskSpec
from towline.model.names import closest, did_you_mean, shown

MAX_NEEDS = 1_000_000


def check_graph(reading: Reading, spec: JobSpec) -> None:
    """Note all problems of the graph. Linear in tasks and needs."""
    tasks_at = Where(None, "tasks")
    total = sum(len(task.needs) for task in spec.tasks.values())
    if total > MAX_NEEDS:
        reading.bad(tasks_at, f"have {total:,} needs together", f"at most {MAX_NEEDS:,}")
        return
    for name, task in spec.tasks.items():
        where = Where(tasks_at, name)
        _check_needs(reading, spec, name, task, where)
        _check_inputs(reading, task, where)
    cycle = find_cycle(spec)
    if cycle is not None:
        path = " → ".join([*cycle, cycle[0]])
        where = Where(Where(tasks_at, cycle[0]), "needs")
        shown_path = path if len(path) < 1_000 else path[:1_000] + " …"
        reading.bad(where, f"is a cycle: {shown_path}", "take one of these needs out")


def _check_needs(reading: Reading, spec: JobSpec, name: str, task: TaskSpec, where: Where) -> None:
    names: set[str] = set()
    for at, need in enumerate(task.needs):
        if need.task in spec.tasks and need.task not in names and not need.each and need.task != name:
            names.add(need.task)
            continue
        place = Where(Where(where, "needs"), at)
        if need.task not in spec.tasks and reading.failed("tasks", need.task):
            continue  # it stands in the file, and what is wrong with it was said
        if need.task not in spec.tasks:
            others = [other for other in spec.tasks if other != name]
            remedy = did_you_mean(need.task, others) or "take it out: the job has no other task"
            reading.bad(place, f"there is no task {shown(need.task)}", remedy)
        elif need.task == name:
            reading.bad(place, "is the task itself", "take it out")
        elif need.task in names:
            reading.bad(place, f"{shown(need.task)} stands here twice", "keep one of them")
        else:
            _check_each(reading, spec.tasks[need.task], need, task, place)
        names.add(need.task)


def _check_each(reading: Reading, needed: TaskSpec, need: Need, task: TaskSpec, where: Where) -> None:
    if reading.failed("tasks", need.task, "array") or reading.failed(*where.keys[:2], "array"):
        return
    if task.array is None or needed.array is None:
        one = "this task" if task.array is None else shown(need.task)
        reading.bad(where, f"each is for two arrays, and {one} has no array", "leave each out")
        return
    here, there = task.array, needed.array
    if (here.first, here.last) != (there.first, there.last):
        reading.bad(
            where,
            f"each is for arrays of equal indexes: {shown(need.task)} has "
            f"{there.first}-{there.last}, this task {here.first}-{here.last}",
            "make the arrays equal, or leave each out",
        )


def _check_inputs(reading: Reading, task: TaskSpec, where: Where) -> None:
    if not task.inputs:
        return
    needed = {need.task for need in task.needs}
    for name in task.inputs:
        if name not in needed:
            near = closest(name, needed)
            remedy = "add it to needs" if near is None else f"did you mean {shown(near)}?"
            place = Where(Where(where, "inputs"), name)
            reading.bad(place, f"{shown(name)} is not among the task's needs", remedy)


def find_cycle(spec: JobSpec) -> list[str] | None:
    """Tasks that need each other in a circle, each before the one that it needs; None if there are none."""
    needs = {
        name: [need.task for need in task.needs if need.task in spec.tasks and need.task != name]
        for name, task in spec.tasks.items()
    }
    needed_by: dict[str, list[str]] = {name: [] for name in needs}
    open_needs = {name: len(needed) for name, needed in needs.items()}
    for name, needed in needs.items():
        for other in needed:
            needed_by[other].append(name)
    ready = deque(name for name, count in open_needs.items() if count == 0)
    while ready:
        for name in needed_by[ready.popleft()]:
            open_needs[name] -= 1
            if open_needs[name] == 0:
                ready.append(name)
    left = {name for name, count in open_needs.items() if count > 0}
    if not left:
        return None
    return _circle(needs, left)


def _circle(needs: dict[str, list[str]], left: set[str]) -> list[str]:
    """Walk along needs that never became ready until a task comes again."""
    at = next(name for name in needs if name in left)
    order: dict[str, int] = {}
    while at not in order:
        order[at] = len(order)
        at = next(name for name in needs[at] if name in left)
    return list(order)[order[at] :]
