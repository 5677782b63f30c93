"""How far the pull of a command's image is, on stderr, beside the output that is passed through."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import TYPE_CHECKING

from towline.cli.screen.terminal import safe, say
from towline.errors import TowlineError
from towline.model.pulls import PULLING, pull_text

if TYPE_CHECKING:
    from towline.client import Job
    from towline.model.views import JobView

FIRST_S = 1.0
LONGEST_S = 5.0
_CLEAR_LINE = "\r\x1b[K"


async def tell_pulls(job: Job) -> None:
    """Until its one element runs: on a terminal a line that is drawn anew, else one line in all."""
    drawn = told = False
    pause_s = FIRST_S
    try:
        while True:
            await asyncio.sleep(pause_s)
            view = await job.view(1)
            if _has_started(view):
                return
            for pull in view.pulls[:1]:
                if sys.stderr.isatty():
                    width = shutil.get_terminal_size().columns - 1
                    sys.stderr.write(_CLEAR_LINE + safe(pull_text(pull))[:width])
                    sys.stderr.flush()
                    drawn = True
                elif pull.step == PULLING and not told:
                    say(safe(pull_text(pull)))
                    told = True
            pause_s = FIRST_S if view.pulls else min(LONGEST_S, pause_s + FIRST_S)
    except TowlineError:
        return  # who waits for the job's end hears of it too
    finally:
        if drawn:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()


def _has_started(view: JobView) -> bool:
    if view.ended_at is not None:
        return True
    attempts = [attempt for task in view.tasks for one in task.elements for attempt in one.attempts]
    return any(attempt.started_at is not None for attempt in attempts)
