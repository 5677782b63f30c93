"""Arguments and options that several commands share, and how they are completed in a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from towline.client import Submission

_COMPLETION_WAIT_S = 2.0
_COMPLETION_JOBS = 200


def complete_job(incomplete: str) -> list[tuple[str, str]]:
    """Names and ids of the latest jobs. Only asks a server that runs: a key press starts nothing."""
    import asyncio

    async def found() -> list[tuple[str, str]]:
        from towline.client import Client
        from towline.client.local import SOCKET, home_directory

        async with asyncio.timeout(_COMPLETION_WAIT_S):
            async with Client(home_directory() / SOCKET, patience_s=0) as client:
                page = await client.jobs(limit=_COMPLETION_JOBS)
        names = {job.name: f"{job.state}, {job.submitted_at}" for job in reversed(page.jobs)}
        ids = {job.id: f"{job.name}, {job.state}" for job in page.jobs}
        return [*names.items(), *(ids.items() if incomplete else ())]

    try:
        candidates = asyncio.run(found())
    except Exception:  # whatever it is: a broken completion must not break the prompt
        return []
    return [(word, help) for word, help in candidates if word.startswith(incomplete)]


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
JobName = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="A job's id, the beginning of one, or a name.", autocompletion=complete_job
    ),
]
What = Annotated[
    str,
    typer.Argument(
        metavar="JOB[/TASK[.INDEX]]",
        help="A job, a task or an element, such as flights/count.3.",
        autocompletion=complete_job,
    ),
]
Params = Annotated[
    list[str] | None,
    typer.Option("-p", "--param", metavar="NAME=VALUE", help="Override a parameter of the job file."),
]
IntoPool = Annotated[
    str | None,
    typer.Option(
        "--pool",
        metavar="NAME[,NAME…]",
        help="Its pool, several to choose from, or any. [default: the file's]",
    ),
]
AtPool = Annotated[
    str | None,
    typer.Option("--pool", metavar="NAME", help="Of this pool. [default: the one there from the start]"),
]
OfPool = Annotated[str | None, typer.Option("--pool", metavar="NAME", help="Of this pool. [default: of all]")]


def into_pool(submission: Submission, pool: str | None) -> Submission:
    """With ``--pool``, where that was given, in place of what the job file says. Raises RequestError."""
    if pool is None:
        return submission
    return submission.into([name.strip() for name in pool.split(",")])


def overrides(given: list[str] | None) -> dict[str, str]:
    """``-p NAME=VALUE`` options as parameters; what type each has the job file says. Raises RequestError."""
    from towline.errors import RequestError

    params: dict[str, str] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise RequestError(f"-p {text!r} is not NAME=VALUE, such as -p year=2014")
        params[name] = value
    return params


def since_ms(text: str) -> int:
    """``--since`` as unix ms: how long ago, or a time (without a zone: UTC). Raises RequestError."""
    from datetime import UTC, datetime

    from towline.cli.screen import terminal
    from towline.errors import RequestError
    from towline.model.units import parse_duration

    now = datetime.now(UTC)
    try:
        return max(0, int(now.timestamp() * 1000) - parse_duration(text))
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
        return max(0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError):
        raise RequestError(
            f"--since: {terminal.safe(text)!r} is no time: write how long ago, such as 10m or 7d, or a time, "
            f"such as {now:%Y-%m-%dT%H:%M:%SZ}."
        ) from None
