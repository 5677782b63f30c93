"""``tow submit``, ``tow wait`` and ``tow attach``; and how ``tow run`` watches over a job."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Generator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from towline.cli.arguments import AsJson, IntoPool, JobName, Params, into_pool, overrides
from towline.cli.screen import terminal
from towline.cli.screen.descriptors import Unwritable
from towline.cli.screen.ending import artifacts_of, status_of, summary, tell_failures
from towline.cli.screen.limits import warn_of_limits

if TYPE_CHECKING:
    from towline.client import Client, Job, Submission


def add(app: typer.Typer) -> None:
    app.command("submit")(submit)
    app.command("wait")(wait)
    app.command("attach")(attach)


def submit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A job file.")],
    param: Params = None,
    key: Annotated[
        str | None, typer.Option("--key", help="The same key with the same job gives the same job again.")
    ] = None,
    pool: IntoPool = None,
    json: AsJson = False,
) -> None:
    """Submit a job file and return at once; the job's id is printed.

    \b
    Examples:
      tow submit job.yaml -p year=2014
      tow wait $(tow submit job.yaml)
      tow submit nightly.yaml --key nightly-2026-01-31
      tow submit job.yaml --pool any
    """

    def work() -> int | None:
        from towline.client import Submission

        submission = into_pool(Submission.of_file(file, overrides(param)), pool)

        async def send(client: Client) -> int:
            job = await client.submit(submission, key=key)
            await warn_of_limits(client, submission, job.submitted.pool)
            with _told_on_loss(f"The job is accepted all the same: {job.id}"):
                if json:
                    terminal.write_json(job.submitted)
                else:
                    terminal.write(job.id)
                sys.stdout.flush()
            return terminal.OK

        return terminal.served(send)

    terminal.end(work)


def wait(
    job: JobName,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="Give up after this long, such as 90s or 2m (status 1).")
    ] = None,
    json: AsJson = False,
) -> None:
    """Wait for a job's end. The exit status is 0 only if it has succeeded.

    \b
    Examples:
      tow wait flights
      tow wait flights --json | jq .counts
    """

    async def work(client: Client) -> int:
        found = await client.job(job)
        view = await found.wait(_seconds(timeout))
        if json:
            from towline.cli.jobs import INLINED_ELEMENTS

            terminal.write_json(await found.view(INLINED_ELEMENTS))
        else:
            terminal.say(summary(view))
        return status_of(view)

    terminal.ask(work)


def attach(job: JobName, json: AsJson = False) -> None:
    """Show how a job goes, as tow run does. Ctrl-C only detaches: the job goes on.

    \b
    Example:
      tow attach flights
    """

    async def work(client: Client) -> int:
        found = await client.job(job)
        try:
            return await watch(found, json)
        except asyncio.CancelledError:
            terminal.say(f"\nDetached; {found.name} goes on. Cancel it with: tow cancel {found.id}")
            raise

    terminal.ask(work)


@contextmanager
def _told_on_loss(text: str) -> Generator[None, None, None]:
    """Where the answer cannot be written, say on stderr what it leaves behind."""
    try:
        yield
    except (BrokenPipeError, Unwritable):
        terminal.say(text)
        raise


def _seconds(text: str | None) -> float | None:
    from towline.errors import RequestError
    from towline.model.units import parse_duration

    try:
        return None if text is None else parse_duration(text) / 1000
    except ValueError as error:
        raise RequestError(f"--timeout {terminal.safe(str(text))!r}: {error}.") from None


def _left(job: Job) -> str:
    return f"{job.name} is left to itself. See how it goes with: tow job {job.id}"


class Interrupts:
    """Ctrl-C while a job runs: the first cancels it, the second kills it, the third leaves it alone."""

    def __init__(self) -> None:
        self.count = 0
        self._hit = asyncio.Event()
        self._main = asyncio.current_task()

    @contextmanager
    def caught(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _interrupted(self) -> None:
        self.count += 1
        self._hit.set()
        if self.count >= 3 and self._main is not None:
            self._main.cancel()

    async def pass_on(self, job: Job) -> None:
        """Also what came before the job was there."""
        while True:
            await self._hit.wait()
            self._hit.clear()
            if self.count == 1:
                terminal.say(f"\nCancelling {job.name}; Ctrl-C once more kills it.")
                await job.cancel()
            else:
                terminal.say(f"\nKilling {job.name}; Ctrl-C once more leaves it to itself.")
                await job.cancel(kill=True)


async def run_and_watch(client: Client, submission: Submission, json: bool) -> int:
    """Submit it and show its progress until it has ended; returns the exit status."""
    interrupts = Interrupts()
    with interrupts.caught():
        job = await client.submit(submission)
        await warn_of_limits(client, submission, job.submitted.pool)
        passing_on = asyncio.create_task(interrupts.pass_on(job))
        try:
            with _told_on_loss(_left(job)):
                status = await watch(job, json)
        finally:
            passing_on.cancel()
    return terminal.INTERRUPTED if interrupts.count else status


async def run_and_copy(client: Client, submission: Submission, json: bool) -> int:
    """Submit a job of one element and pass its output through; returns the exit status."""
    from towline.cli.logs import Copying
    from towline.cli.screen.pulling import tell_pulls

    interrupts = Interrupts()
    with interrupts.caught():
        job = await client.submit(submission)
        await warn_of_limits(client, submission, job.submitted.pool)
        passing_on = asyncio.create_task(interrupts.pass_on(job))
        copying = Copying(job.logs(follow=True))
        telling = asyncio.create_task(tell_pulls(job))
        try:
            with _told_on_loss(_left(job)):
                view = await copying.until_ended(job.wait())
        finally:
            passing_on.cancel()
            copying.cancel()
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
    if view.state != "succeeded":
        await tell_failures(job, view, lines=0)
    terminal.say(summary(view))
    if interrupts.count:
        return terminal.INTERRUPTED
    return status_of(view) if copying.complete else terminal.FAILED


async def watch(job: Job, json: bool, cursor: str | None = None) -> int:
    """Show a job's progress (after ``cursor``) until it has ended, then what came of it; returns the exit
    status."""
    from towline.cli.screen.display import default_display
    from towline.client.progress import Progress, follow

    display = default_display(json)
    progress = Progress(job.submitted)
    try:
        async with aclosing(follow(job, tick_s=display.tick_s, cursor=cursor)) as steps:
            async for step in steps:
                progress.apply(step)
                display.update(progress)
    finally:
        display.close()
    view = progress.view
    if json:
        from towline.cli.jobs import INLINED_ELEMENTS

        terminal.write_json(await job.view(INLINED_ELEMENTS))
        return status_of(view)
    await tell_failures(job, view)
    terminal.write(summary(view))
    terminal.write(f"logs: tow logs {view.id}")
    if view.state in ("failed", "cancelled"):
        terminal.write(f"run again what did not succeed: tow retry {view.id}")
    kept = artifacts_of(view)
    if kept is not None:
        terminal.write(f"artifacts: {kept}")
    return status_of(view)
