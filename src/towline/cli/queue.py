"""``tow queue``, ``tow priority`` and ``tow plan``: shares of the pool, and who goes first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towline.cli.arguments import AsJson, AtPool, IntoPool, JobName, Params, into_pool, overrides
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.client import Client
    from towline.model.views import PlanView, QueueView

queue = typer.Typer(help="Queues: who gets which share of a pool.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="A queue's name.")]
Parent = Annotated[
    str | None,
    typer.Option("--parent", metavar="QUEUE", help="The queue that it is part of (none: the top)."),
]
Weight = Annotated[
    float | None,
    typer.Option("--weight", metavar="N", help="Its share beside its siblings', such as 3 or 0.5 (1)."),
]
Guaranteed = Annotated[
    str | None,
    typer.Option("--guaranteed", metavar="AMOUNTS", help="Goes before others' shares: cpu=4,memory=8Gi."),
]
Maximum = Annotated[
    str | None,
    typer.Option("--max", metavar="AMOUNTS", help="Never more than: gpu=2,cpu=none (none: no bound)."),
]
MaxActive = Annotated[
    str | None, typer.Option("--max-active", metavar="N", help="Elements active at once, or none.")
]
MaxPriority = Annotated[
    int | None,
    typer.Option("--max-priority", metavar="N", help="The highest priority that counts in it (100)."),
]


def add(app: typer.Typer) -> None:
    queue.command("ls")(ls)
    queue.command("show")(show)
    queue.command("create")(create)
    queue.command("set")(change)
    queue.command("rm")(remove)
    app.add_typer(queue, name="queue")
    app.command("priority")(priority)
    app.command("plan")(plan)


def ls(pool: AtPool = None, json: AsJson = False) -> None:
    """List all queues of a pool with what they hold now.

    \b
    Examples:
      tow queue ls
      tow queue ls --pool gpu
      tow queue ls --json | jq '.queues[] | {name, share}'
    """

    async def work(client: Client) -> int:
        found = await client.queues(pool)
        if json:
            terminal.write_json({"queues": found})
            return terminal.OK
        header = ("queue", "weight", "share", "fair share", "active", "queued", "jobs", "bounds")
        terminal.table(header, [_row(view, depth) for view, depth in _tree(found, None, 0)])
        return terminal.OK

    terminal.ask(work)


def show(name: Name, pool: AtPool = None, json: AsJson = False) -> None:
    """Show one queue.

    \b
    Example:
      tow queue show research
    """

    async def work(client: Client) -> int:
        _tell(await client.queue(name, pool), json)
        return terminal.OK

    terminal.ask(work)


def create(
    name: Name,
    parent: Parent = None,
    weight: Weight = None,
    guaranteed: Guaranteed = None,
    maximum: Maximum = None,
    max_active: MaxActive = None,
    max_priority: MaxPriority = None,
    pool: AtPool = None,
    json: AsJson = False,
) -> None:
    """Make a queue.

    \b
    Examples:
      tow queue create research --weight 3 --guaranteed cpu=4,memory=8Gi
      tow queue create night --parent research --max gpu=2 --max-active 10
      tow queue create research --pool gpu
    """
    fields = _fields(parent, weight, guaranteed, maximum, max_active, max_priority)
    terminal.ask(lambda client: _set(client, name, "new", pool, fields, json))


def change(
    name: Name,
    parent: Parent = None,
    weight: Weight = None,
    guaranteed: Guaranteed = None,
    maximum: Maximum = None,
    max_active: MaxActive = None,
    max_priority: MaxPriority = None,
    pool: AtPool = None,
    json: AsJson = False,
) -> None:
    """Change what is given of a queue; the rest stays.

    \b
    Examples:
      tow queue set research --weight 2
      tow queue set research --max gpu=none --parent none
    """
    fields = _fields(parent, weight, guaranteed, maximum, max_active, max_priority)
    terminal.ask(lambda client: _set(client, name, "existing", pool, fields, json))


def remove(name: Name, pool: AtPool = None) -> None:
    """Delete a queue that has no jobs and no queues below it.

    \b
    Example:
      tow queue rm night
    """

    async def work(client: Client) -> int:
        await client.delete_queue(name, pool)
        terminal.say(f"Deleted queue {name}.")
        return terminal.OK

    terminal.ask(work)


def priority(
    job: JobName,
    level: Annotated[int, typer.Argument(metavar="N", help="0 to 100; higher goes first in its queue.")],
    json: AsJson = False,
) -> None:
    """Change the priority of what of a job is still queued.

    \b
    Example:
      tow priority flights 80
    """

    async def work(client: Client) -> int:
        view = await (await client.job(job)).set_priority(level)
        if json:
            terminal.write_json(view)
        else:
            terminal.say(f"{view.name} ({view.id}) has priority {view.priority} in queue {view.queue}.")
        return terminal.OK

    terminal.ask(work)


def plan(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A job file.")],
    param: Params = None,
    pool: IntoPool = None,
    json: AsJson = False,
) -> None:
    """Say where everything of a job file would go now, without submitting it.

    \b
    Examples:
      tow plan job.yaml -p year=2014
      tow plan job.yaml --pool any
    """

    def work() -> int | None:
        from towline.client import Submission

        submission = into_pool(Submission.of_file(file, overrides(param)), pool)

        async def ask(client: Client) -> int:
            view = await client.plan(submission)
            if json:
                terminal.write_json(view)
            else:
                if submission.document.get("pool") is not None:
                    terminal.write(f"pool: {view.pool}")
                _tell_plan(view)
            return terminal.OK

        return terminal.served(ask)

    terminal.end(work)


async def _set(
    client: Client, name: str, only: str, pool: str | None, fields: dict[str, Any], json: bool
) -> int:
    _tell(await client.set_queue(name, only=only, pool=pool, **fields), json)
    return terminal.OK


def _fields(
    parent: str | None,
    weight: float | None,
    guaranteed: str | None,
    maximum: str | None,
    max_active: str | None,
    max_priority: int | None,
) -> dict[str, Any]:
    """The options that were given, as the API names them; ``none`` takes something away."""
    from towline.errors import RequestError

    def build() -> dict[str, Any]:
        if weight is not None and not math.isfinite(weight):
            raise RequestError(f"--weight {weight} is no number: write 0.001 to 1000000")
        fields: dict[str, Any] = {"weight": weight, "max_priority": max_priority}
        fields = {name: value for name, value in fields.items() if value is not None}
        if parent is not None:
            fields["parent"] = None if parent == "none" else parent
        if max_active is not None:
            if max_active != "none" and not max_active.isdecimal():
                raise RequestError(f"--max-active {max_active!r} is no whole number from 0 on, and not none")
            fields["max_active"] = None if max_active == "none" else int(max_active)
        for option, field, text in (
            ("--guaranteed", "guaranteed", guaranteed),
            ("--max", "maximum", maximum),
        ):
            if text is not None:
                fields[field] = _amounts(option, text)
        return fields

    try:
        return build()
    except RequestError as error:
        raise typer.Exit(terminal.tell(error)) from None


def _amounts(option: str, text: str) -> dict[str, str]:
    from towline.errors import RequestError

    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise RequestError(f"{option} {text!r}: {part!r} is not NAME=AMOUNT, such as cpu=4,memory=8Gi")
        found[name.strip()] = value.strip()
    return found


def _tree(views: list[QueueView], parent: str | None, depth: int) -> list[tuple[QueueView, int]]:
    found: list[tuple[QueueView, int]] = []
    for view in views:
        if view.parent == parent:
            found += [(view, depth), *_tree(views, view.name, depth + 1)]
    return found


def _row(view: QueueView, depth: int) -> tuple[object, ...]:
    name = "  " * depth + view.name
    share = f"{view.share:.1%} {view.dominant}" if view.share else "0%"
    fair = f"{view.fair_share:.1%}"
    return name, f"{view.weight:g}", share, fair, view.active, view.queued, view.jobs, _bounds(view)


def _bounds(view: QueueView) -> str:
    parts = [f"guaranteed {_shown(view.guaranteed)}"] if view.guaranteed else []
    parts += [f"max {_shown(view.maximum)}"] if view.maximum else []
    parts += [f"max active {view.max_active}"] if view.max_active is not None else []
    parts += [f"max priority {view.max_priority}"] if view.max_priority < 100 else []
    return "; ".join(parts)


def _shown(amounts: dict[str, float]) -> str:
    from towline.model.units import show_bytes

    return ",".join(
        f"{name}={show_bytes(int(amount)) if name == 'memory' else f'{amount:g}'}"
        for name, amount in amounts.items()
    )


def _tell(view: QueueView, json: bool) -> None:
    if json:
        terminal.write_json(view)
        return
    facts = [
        ("queue", view.name),
        ("pool", view.pool),
        ("parent", view.parent),
        ("weight", f"{view.weight:g}"),
        ("share", f"{view.share:.1%} ({view.dominant}), fair share {view.fair_share:.1%}"),
        ("holds", _shown({name: amount for name, amount in view.held.items() if amount})),
        ("bounds", _bounds(view)),
        ("order", _order(view)),
        ("elements", f"{view.active} active, {view.queued} queued"),
        ("jobs", view.jobs),
    ]
    terminal.facts(facts)


def _order(view: QueueView) -> str:
    """The order inside a queue; nothing by a server that does not tell it."""
    from towline.model.units import show_duration

    if not view.order:
        return ""
    half_life = show_duration(round(view.usage_half_life_s * 1000))
    return f"priority, then usage by namespace (half-life {half_life}), then {view.order}"


def _tell_plan(view: PlanView) -> None:
    for planned in view.placements:
        devices = f" on GPUs {' '.join(planned.devices)}" if planned.devices else ""
        what = planned.task if planned.count == 1 else f"{planned.task} x {planned.count}"
        terminal.write(terminal.safe(f"{what}: node {planned.node}{devices} ({planned.placed})"))
    for waiting in view.waiting:
        start = f"; expected start {waiting.expected_start}" if waiting.expected_start else ""
        terminal.write(
            terminal.safe(f"{waiting.task} x {waiting.count}: would wait: {waiting.summary}{start}")
        )
        for detail in waiting.details:
            terminal.write(f"  {terminal.safe(detail)}")
