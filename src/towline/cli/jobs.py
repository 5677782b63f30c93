"""``tow jobs``, ``job``, ``tasks``, ``why``, ``cancel``, ``retry``: what there is, how it stands, its end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson, JobName, What, complete_job
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client, Job
    from towline.model.views import AttemptView, DeliveryView, ElementView, JobView, RetryView, TaskView

INLINED_ELEMENTS = 1000
RETRIED_SHOWN = 10

States = Annotated[
    str | None, typer.Option("--state", metavar="STATE[,STATE…]", help="Only those in these states.")
]
Cursor = Annotated[
    str | None,
    typer.Option("--cursor", metavar="CURSOR", help="Where to go on: next_cursor of the page before."),
]


def add(app: typer.Typer) -> None:
    app.command("jobs")(jobs)
    app.command("job")(job)
    app.command("tasks")(tasks)
    app.command("why")(why)
    app.command("cancel")(cancel)
    app.command("retry")(retry)


def jobs(
    state: States = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=1000, help="At most so many.")
    ] = 20,
    cursor: Cursor = None,
    json: AsJson = False,
) -> None:
    """List jobs, newest first.

    \b
    Examples:
      tow jobs
      tow jobs --state running
      tow jobs --json -n 100
    """

    async def work(client: Client) -> int:
        page = await client.jobs(limit=limit, cursor=cursor, state=state)
        if json:
            terminal.write_json(page)
            return terminal.OK
        several = len({view.pool for view in page.jobs}) > 1
        pulling = any(view.pulls for view in page.jobs)
        header = ["id", "name", *(["pool"] if several else []), "state", "elements", "submitted", "took"]
        rows = [
            (
                view.id,
                view.name,
                *([view.pool] if several else []),
                view.state,
                sum(view.counts.values()),
                _short(view.submitted_at),
                _took(view),
                *([_pulls(view)] if pulling else []),
            )
            for view in page.jobs
        ]
        terminal.table([*header, "now"] if pulling else header, rows)
        _say_more(page.next_cursor)
        return terminal.OK

    terminal.ask(work)


def job(
    job: JobName,
    spec: Annotated[bool, typer.Option("--spec", help="Print the job file as it was submitted.")] = False,
    json: AsJson = False,
) -> None:
    """Show a job as it stands. With --json, up to 1,000 elements are in the document.

    \b
    Examples:
      tow job flights
      tow job flights --json | jq .state
      tow job flights --spec > again.json
    """

    async def work(client: Client) -> int:
        found = await client.job(job)
        if spec:
            terminal.write_json(await found.document())
        elif json:
            terminal.write_json(await found.view(INLINED_ELEMENTS))
        else:
            _show_job(found.submitted)
        return terminal.OK

    terminal.ask(work)


def tasks(
    what: What,
    state: States = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, max=10_000, help="At most so many.")
    ] = 50,
    cursor: Cursor = None,
    json: AsJson = False,
) -> None:
    """List a job's tasks, a task's elements or an element's attempts.

    \b
    Examples:
      tow tasks flights
      tow tasks flights/count --state failed
      tow tasks flights/count.3
    """

    async def work(client: Client) -> int:
        from towline.errors import RequestError

        named = terminal.reference(what)
        wanted = _states(state)
        if wanted and named.index is not None:
            raise RequestError(f"--state chooses tasks or elements, and {what} is one element: leave it out.")
        found = await client.job(named.job)
        if named.task is None:
            _show_tasks([task for task in found.submitted.tasks if not wanted or task.state in wanted], json)
        elif named.index is None:
            page = await found.task(named.task, cursor=cursor, limit=limit, state=state)
            _show_elements(page, json)
        else:
            await _show_element(client, found, named.task, named.index, json)
        return terminal.OK

    terminal.ask(work)


def why(what: What, json: AsJson = False) -> None:
    """Say why a job, task or element is in its state.

    \b
    Examples:
      tow why flights
      tow why flights/count
      tow why flights/count.3
    """

    async def work(client: Client) -> int:
        named = terminal.reference(what)
        found = await client.job(named.job)
        answer = await found.why(named.task, named.index)
        if json:
            terminal.write_json(answer)
            return terminal.OK
        terminal.write(terminal.safe(answer.summary))
        lines = [*answer.details, *answer.place]
        if answer.expected_start:
            mark = " (an estimate)" if answer.expected_start_is == "estimated" else ""
            lines.append(f"expected start: {answer.expected_start}{mark}")
        lines += [f"what would let it start: {answer.remedy}"] if answer.remedy else []
        lines += [f"placed: {answer.placed}"] if answer.placed else []
        for line in lines:
            terminal.write(f"  {terminal.safe(line)}")
        return terminal.OK

    terminal.ask(work)


def cancel(
    what: What,
    kill: Annotated[bool, typer.Option("--kill", help="SIGKILL at once, without the grace period.")] = False,
    json: AsJson = False,
) -> None:
    """Cancel a job, one of its tasks or one element.

    What runs gets SIGTERM, and SIGKILL after the task's grace (10 s). The command returns at once;
    see the end with `tow wait JOB`.

    \b
    Examples:
      tow cancel flights
      tow cancel flights/count
      tow cancel flights/count.3 --kill
    """

    async def work(client: Client) -> int:
        named = terminal.reference(what)
        job = await client.job(named.job)
        view = await job.cancel(named.task, named.index, kill=kill)
        if json:
            terminal.write_json(view)
        elif job.submitted.state != "running":
            terminal.say(f"{view.name} ({view.id}) had ended already: {view.state}.")
        elif view.state != "running":  # nothing of it ran
            terminal.say(f"Cancelled {what}: {view.name} ({view.id}) has ended: {view.state}.")
        else:
            terminal.say(f"Cancelling {what}. See its end with: tow wait {view.id}")
        return terminal.OK

    terminal.ask(work)


def retry(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB[/TASK[.INDEX]]…",
            help="A job, or tasks and elements of one job.",
            autocompletion=complete_job,
        ),
    ],
    failed: Annotated[
        bool, typer.Option("--failed", help="Only what has failed: what was cancelled stays so.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show how it goes, as tow run does.")] = False,
    json: AsJson = False,
) -> None:
    """Run again what did not succeed of a job, whether it has ended or still runs.

    All that failed or was cancelled runs again, and what was skipped because of it; what has
    succeeded keeps its results. Attempts go on counting, and the task's retries count anew.
    The command returns at once; with --watch its exit status is the job's.

    \b
    Examples:
      tow retry flights
      tow retry flights --failed --watch
      tow retry flights/count.3 flights/count.7
    """

    async def work(client: Client) -> int:
        from towline.cli.submit import watch as show

        name, elements = _of_one_job(what)
        job = await client.job(name)
        answer = await job.retry(elements, failed=failed)
        if watch:
            if not json:
                terminal.say(_retried(answer))
            try:
                return await show(await client.job(job.id), json, answer.cursor)
            except asyncio.CancelledError:
                terminal.say(f"\nDetached; {job.name} goes on. Cancel it with: tow cancel {job.id}")
                raise
        if json:
            terminal.write_json(answer)
        else:
            terminal.say(f"{_retried(answer)} See its end with: tow wait {job.id}")
        return terminal.OK

    terminal.ask(work)


def _of_one_job(what: list[str]) -> tuple[str, list[tuple[str, int | None]]]:
    """The job, and the tasks and elements that are named; none where the job itself is."""
    from towline.errors import RequestError

    named = [terminal.reference(one) for one in what]
    others = sorted({one.job for one in named[1:]} - {named[0].job})
    if others:
        raise RequestError(
            f"{terminal.safe(named[0].job)} and {terminal.safe(others[0])} are two jobs: retry one at a time."
        )
    if any(one.task is None for one in named):
        return named[0].job, []
    return named[0].job, [(one.task, one.index) for one in named if one.task is not None]


def _retried(answer: RetryView) -> str:
    view = answer.job
    if not answer.retried:
        return f"{view.name} ({view.id}): nothing has failed, or it runs again already: {view.state}."
    shown = ", ".join(answer.retried[:RETRIED_SHOWN])
    more = answer.ranges - RETRIED_SHOWN
    return f"{view.name} ({view.id}) runs again: {shown}" + (f" and {more} more." if more > 0 else ".")


def _show_job(view: JobView) -> None:
    state = view.state + (" (being cancelled)" if view.cancel_requested and view.state == "running" else "")
    facts = [
        ("job", view.name),
        ("id", view.id),
        ("state", state),
        ("message", view.message),
        ("pool", view.pool),
        ("queue", view.queue),
        ("priority", view.priority),
        ("labels", ", ".join(f"{name}={value}" for name, value in view.labels.items())),
        ("submitted", _short(view.submitted_at)),
        ("took" if view.ended_at else "since", _took(view)),
        ("elements", terminal.counted(view.counts)),
        ("now", _pulls(view)),
        *(("webhook", _delivery(one)) for one in view.webhooks),
    ]
    terminal.facts(facts)
    terminal.write("")
    _show_tasks(view.tasks, json=False)


def _delivery(view: DeliveryView) -> str:
    """``https://ci.lan/tow: failed; pending after 2 attempts, next at …: it answers with status 500``"""
    tries = f" after {view.attempts} attempt{'' if view.attempts == 1 else 's'}" if view.attempts else ""
    when = f", {'next at' if view.state == 'pending' else 'at'} {_short(view.at)}"
    why = f": {view.message}" if view.message else ""
    return f"{view.webhook}: {view.outcome}; {view.state}{tries}{when}{why}"


def _states(text: str | None) -> list[str]:
    """Those of tasks and elements that ``--state`` names. Raises RequestError."""
    from towline.errors import RequestError
    from towline.model.states import ElementState

    known = [state.value for state in ElementState]
    wanted = [] if text is None else [word.strip() for word in text.split(",")]
    for word in wanted:
        if word not in known:
            raise RequestError(f"--state: there is no state {word!r}: there are {', '.join(known)}.")
    return wanted


def _show_tasks(views: list[TaskView], json: bool) -> None:
    if json:
        terminal.write_json({"tasks": views})
        return
    rows = [
        (
            view.name,
            view.state,
            view.size,
            terminal.counted(view.counts),
            ",".join(view.needs),
            _one_line(view.message),
        )
        for view in views
    ]
    terminal.table(("task", "state", "size", "counts", "needs", "message"), rows)


def _show_elements(page: TaskView, json: bool) -> None:
    if json:
        terminal.write_json(page)
        return
    terminal.write(f"{page.name}: {page.state}, {terminal.counted(page.counts)}")
    rows = [
        (
            view.index,
            view.state,
            view.exit_code,
            len(view.attempts),
            _element_took(view),
            _one_line(view.message),
        )
        for view in page.elements
    ]
    terminal.table(("index", "state", "exit", "attempts", "took", "message"), rows)
    _say_more(page.next_cursor)


async def _show_element(client: Client, job: Job, task: str, index: int, json: bool) -> None:
    from towline.errors import NotFound

    page = await job.task(task, cursor=str(index - 1) if index > 0 else None, limit=1)
    found = [element for element in page.elements if element.index == index]
    if not found:
        raise NotFound(f"Task {task} of job {job.name} has no element {index}: see tow tasks {job.id}/{task}")
    if json:
        terminal.write_json(found[0])
        return
    (element,) = found
    terminal.write(f"{task}.{index}: {element.state}" + (f" ({element.reason})" if element.reason else ""))
    if element.message:
        terminal.write(terminal.safe(element.message))
    header = ("attempt", "state", "reason", "exit", "node", "took", "cpu", "peak memory")
    named = {node.id: node.name for node in await client.nodes(job.submitted.pool)}
    terminal.table(header, [_attempt_row(attempt, named) for attempt in element.attempts])


def _attempt_row(view: AttemptView, named: dict[str, str]) -> tuple[object, ...]:
    from towline.model.units import human_bytes

    return (
        view.number,
        view.state,
        view.reason,
        view.exit_code,
        named.get(view.node, view.node),
        _attempt_took(view),
        None if view.cpu_seconds is None else f"{view.cpu_seconds:.2f} s",
        None if view.peak_memory_bytes is None else human_bytes(view.peak_memory_bytes),
    )


def _attempt_took(view: AttemptView) -> str | None:
    if view.started_at is None:
        return None
    return terminal.length(terminal.seconds_between(view.started_at, view.finished_at))


def _element_took(view: ElementView) -> str | None:
    return _attempt_took(view.attempts[-1]) if view.attempts else None


def _took(view: JobView) -> str:
    return terminal.length(terminal.seconds_between(view.submitted_at, view.ended_at))


def _pulls(view: JobView) -> str:
    """What it waits for, and how far that is."""
    from towline.model.pulls import pull_text

    return "; ".join(map(pull_text, view.pulls))


def _short(at: str) -> str:
    """A time as people read it, in the machine's own zone."""
    from datetime import datetime

    return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _say_more(cursor: str | None) -> None:
    if cursor is not None:
        terminal.say(f"There are more; go on with: --cursor {cursor}")
