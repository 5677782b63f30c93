"""What the API tells of jobs: facts, read from the store, never asked of the leader.

Elements without a row of their own are derived: from what has ended as a range, from ``next``, and
for tasks with ``each`` from the elements that they need.
"""

from __future__ import annotations

from collections import OrderedDict

from towline.core.rows import AttemptRow, JobRow, SpecRow, TaskRow
from towline.errors import NotFound, RequestError
from towline.model.job import TaskSpec
from towline.model.states import ElementState, JobState
from towline.model.units import rfc3339
from towline.model.views import DeliveryView, ElementView, JobView, TaskView
from towline.server.views import (
    element_view,
    job_view,
    ranged_view,
    task_view,
    total,
    unplaced_view,
)
from towline.store.port import ElementPage, Store

QUEUED, WAITING = ElementState.QUEUED.value, ElementState.WAITING.value
SUCCEEDED = ElementState.SUCCEEDED.value
SPECS_KEPT = 256
OWNERS_KEPT = 20_000
"""Of so many jobs it is known without a look whose they are."""
MESSAGES_TOLD = 100
"""Of so many tasks of one element a job without its elements says why they failed."""
SCAN_INDEXES = 5_000
"""So many indexes one page looks at for elements of one state, before it ends with a cursor."""
SCAN_STEP = 500
"""So many of them in one read."""


class Facts:
    """Reads of one namespace. Specs never change, so the last few are kept."""

    def __init__(self, store: Store, namespace: str) -> None:
        self._store = store
        self._namespace = namespace
        self._specs: OrderedDict[str, SpecRow] = OrderedDict()
        self._owned: OrderedDict[str, str] = OrderedDict()

    async def find(self, argument: str) -> JobRow:
        """The job that a JOB argument means. Raises NotFound, also where it could be several."""
        rows = await self._store.find_jobs(self._namespace, argument)
        if not rows:
            raise NotFound(f"There is no job {argument!r}: `tow jobs` lists those that there are.")
        if len(rows) > 1:
            names = ", ".join(f"{row.id} ({row.name})" for row in rows)
            raise NotFound(f"{argument!r} is the beginning of several jobs: {names}. Give more of its id.")
        return rows[0]

    def within(self, namespace: str) -> Facts:
        """Those of another namespace."""
        made = Facts(self._store, namespace)
        made._specs, made._owned = self._specs, self._owned
        return made

    async def owns(self, job: str) -> bool:
        """Whether a job, by its id, is of this namespace."""
        found = self._owned.get(job)
        if found is None:
            try:
                found = self._owned[job] = (await self.by_id(job)).namespace
            except NotFound:
                return False
            if len(self._owned) > OWNERS_KEPT:
                self._owned.popitem(last=False)
        return found == self._namespace

    async def by_id(self, job: str) -> JobRow:
        """A job of any namespace, by its whole id. Raises NotFound."""
        both = await self._store.job(job)
        if both is None:
            raise NotFound(f"There is no job {job!r}.")
        return both[0]

    def remember(self, spec: SpecRow) -> None:
        self._specs[spec.job] = spec
        if len(self._specs) > SPECS_KEPT:
            self._specs.popitem(last=False)

    async def spec(self, job: str) -> SpecRow:
        """Raises NotFound."""
        found = self._specs.get(job)
        if found is not None:
            self._specs.move_to_end(job)
            return found
        both = await self._store.job(job)
        if both is None:
            raise NotFound(f"There is no job {job!r}.")
        self.remember(both[1])
        return both[1]

    async def summary(self, row: JobRow) -> JobView:
        """A job in a list: without its tasks."""
        labels = (await self.spec(row.id)).spec.labels
        return job_view(row, labels, total(await self._store.tasks(row.id)), [])

    async def job(self, row: JobRow, elements: int) -> JobView:
        """A job with its tasks, and up to ``elements`` of their elements over all of them."""
        spec = (await self.spec(row.id)).spec
        tasks = await self._store.tasks(row.id)
        views: list[TaskView] = []
        told = 0
        for task in tasks:
            shown: list[ElementView] = []
            after = task.first - 1
            if elements > 0:
                through = min(task.last, after + elements)
                shown = await self._elements(spec.tasks[task.name], tasks, task, after, through)
                after, elements = through, elements - len(shown)
            cursor = str(after) if after < task.last else None
            worst = shown
            if not shown and task.failed and task.first == task.last and told < MESSAGES_TOLD:
                worst = await self._elements(spec.tasks[task.name], tasks, task, after, task.last)
                told += 1
            views.append(task_view(task, spec.tasks[task.name], shown, cursor, worst))
        return job_view(row, spec.labels, total(tasks), views)

    async def deliveries(self, row: JobRow) -> list[DeliveryView]:
        """What has become of its webhooks; of their URLs only what names the receiver."""
        notices = (await self.spec(row.id)).spec.notify
        owed = await self._store.delivery_of(row.id) if notices else []
        return [
            DeliveryView(
                webhook=notices[one.position].webhook.partition("?")[0],
                outcome=one.outcome,
                state=one.state,
                attempts=one.attempts,
                at=rfc3339(one.next_at),
                message=one.message,
            )
            for one in owed
        ]

    async def task_row(self, row: JobRow, name: str) -> TaskRow:
        """Raises NotFound."""
        return _named(row, await self._store.tasks(row.id), name)

    async def page(
        self, row: JobRow, name: str, cursor: str | None, limit: int, state: str | None
    ) -> TaskView:
        """A page of a task's elements, all or those in one state."""
        spec = (await self.spec(row.id)).spec
        tasks = await self._store.tasks(row.id)
        task = _named(row, tasks, name)
        if state is not None and state not in tuple(ElementState):
            states = ", ".join(ElementState)
            raise RequestError(f"There is no state {state!r}: the states of elements are {states}.")
        after = _index(cursor, task.first - 1)
        if state is not None and getattr(task, state) == 0:
            return task_view(task, spec.tasks[name], [], None)
        if state in (QUEUED, WAITING) and _only_unplaced(spec.tasks[name], task):
            after = max(after, task.next - 1)
        shown: list[ElementView] = []
        last = task.last if state is None else min(task.last, after + SCAN_INDEXES)
        while after < last and len(shown) < limit:
            # Those in one state may be far apart: small steps would be one read after another.
            through = min(last, after + (limit if state is None else max(limit, SCAN_STEP)))
            found = await self._elements(spec.tasks[name], tasks, task, after, through)
            shown += [element for element in found if state is None or element.state == state]
            after = through
            if len(shown) > limit:
                del shown[limit:]
                after = shown[-1].index
        return task_view(task, spec.tasks[name], shown, str(after) if after < task.last else None)

    async def _elements(
        self, spec: TaskSpec, tasks: list[TaskRow], task: TaskRow, after: int, through: int
    ) -> list[ElementView]:
        """The elements above ``after`` up to ``through``, in order of their index."""
        size = task.last - task.first + 1
        if size in (task.waiting, task.queued) and task.next == task.first and not _by_element(spec):
            state = QUEUED if task.queued else WAITING
            return [unplaced_view(index, state) for index in range(after + 1, through + 1)]
        page = await self._store.elements(task.job, task.task, after, through)
        views = _known(page, after, through)
        missing = [index for index in range(after + 1, through + 1) if index not in views]
        if missing:
            ready = await self._ready(spec, tasks, task, after, through)
            for index in missing:
                views[index] = unplaced_view(index, QUEUED if index in ready else WAITING)
        return [views[index] for index in range(after + 1, through + 1)]

    async def _ready(
        self, spec: TaskSpec, tasks: list[TaskRow], task: TaskRow, after: int, through: int
    ) -> set[int] | range:
        """Which unplaced elements have all that they need."""
        everything = range(after + 1, through + 1)
        if not task.ready or task.queued == 0:
            return range(0)
        if task.waiting == 0 or not _by_element(spec):
            return everything
        ready = set(everything)
        positions = {row.name: row.task for row in tasks}
        for need in spec.needs:
            if need.each:
                page = await self._store.elements(task.job, positions[need.task], after, through)
                ready &= {row.index for row in page.elements if row.state == SUCCEEDED}
        return ready


def _by_element(spec: TaskSpec) -> bool:
    return any(need.each for need in spec.needs)


def _only_unplaced(spec: TaskSpec, task: TaskRow) -> bool:
    """Whether the counts say that what waits or is queued was never placed: then it begins at ``next``."""
    if _by_element(spec) or task.cancelled or task.skipped:
        return False
    return task.waiting + task.queued == task.last - task.next + 1


def _known(page: ElementPage, after: int, through: int) -> dict[int, ElementView]:
    """Views of the elements that have rows, or lie in a range that has ended."""
    attempts: dict[int, list[AttemptRow]] = {}
    for attempt in page.attempts:
        attempts.setdefault(attempt.index, []).append(attempt)
    views = {row.index: element_view(row, attempts.get(row.index, [])) for row in page.elements}
    for row in page.ranges:
        for index in range(max(row.lo, after + 1), min(row.hi, through) + 1):
            views.setdefault(index, ranged_view(index, row))
    return views


def _named(row: JobRow, tasks: list[TaskRow], name: str) -> TaskRow:
    for task in tasks:
        if task.name == name:
            return task
    names = ", ".join(task.name for task in tasks[:20])
    raise NotFound(f"Job {row.id} has no task {name!r}: its tasks are {names}.")


def _index(cursor: str | None, start: int) -> int:
    if cursor is None:
        return start
    try:
        return max(start, int(cursor))
    except ValueError:
        raise RequestError(
            f"{cursor!r} is no cursor of elements: leave it out to start at the first."
        ) from None


def has_ended(row: JobRow) -> bool:
    """Nothing more is to be waited for: the job has ended, or was set aside."""
    return row.state != JobState.RUNNING
