"""What nodes have told of the images that they are getting for attempts: in no store, and forgotten with
the link."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from towline.model.pulls import PullingView, pull_text
from towline.model.views import JobView, WhyView
from towline.wire.pulls import Pull

Told = Iterable[tuple[str, str, Pull]]
"""(node's id, its name, pull)."""


def pulls_of(told: Told, job: str, tasks: Sequence[str]) -> list[PullingView]:
    """Those that something of the job waits for. ``tasks``: its tasks' names by position."""
    found: list[PullingView] = []
    for _, name, pull in told:
        positions = [task for owner, task in pull.tasks if owner == job]
        if positions:
            found.append(_view(name, pull, [tasks[at] for at in positions]))
    return found


def add_pulls(view: JobView, told: Told, tasks: Sequence[str]) -> JobView:
    """The same view, with what its attempts wait for: nothing of a job that has ended, whose nodes may not
    have told yet."""
    view.pulls = [] if view.ended_at is not None else pulls_of(told, view.id, tasks)
    return view


def explain_pulls(view: WhyView, told: Sequence[tuple[str, str, Pull]], tasks: Sequence[str]) -> WhyView:
    """What is said of an element that a node prepares is what that node waits for; of a job or a task,
    what all of its nodes do."""
    if view.preparing_on is not None:
        told = [one for one in told if one[0] == view.preparing_on]
    elif view.index is not None:
        return view
    view.pulls = [
        pull for pull in pulls_of(told, view.job, tasks) if view.task is None or view.task in pull.tasks
    ]
    if view.preparing_on is not None and view.pulls:
        view.summary = f"node {view.pulls[0].node} is {pull_text(view.pulls[0])}"
    elif view.preparing_on is None:
        view.details += [f"node {pull.node} is {pull_text(pull)}" for pull in view.pulls]
    return view


def _view(node: str, pull: Pull, tasks: list[str]) -> PullingView:
    return PullingView(
        image=pull.image,
        node=node,
        tasks=tasks,
        step=pull.step,
        arrived_bytes=pull.arrived_bytes,
        total_bytes=pull.total_bytes,
        seconds=pull.age_ms / 1000,
    )
