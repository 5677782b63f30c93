"""``tow artifacts ls`` and ``tow artifacts get``."""

from __future__ import annotations

import sys
import time
from contextlib import aclosing
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from towline.cli.arguments import AsJson, What
from towline.cli.screen import terminal

if TYPE_CHECKING:
    from towline.cli.artifacts.receiving import Destination
    from towline.client import Client, Job
    from towline.client.artifacts import Artifacts
    from towline.model.views import ArtifactView

TRIES = 3
"""So often a file is begun when its connection breaks off."""
TOLD_EVERY_S = 0.2

artifacts = typer.Typer(help="Artifacts: what tasks wrote under TOW_OUT.", no_args_is_help=True)

Attempt = Annotated[
    int | None,
    typer.Option("--attempt", min=1, metavar="N", help="Of this attempt of one element, which has failed."),
]


def add(app: typer.Typer) -> None:
    artifacts.command("ls")(ls)
    artifacts.command("get")(get)
    app.add_typer(artifacts, name="artifacts")


class Element(NamedTuple):
    """An element and where its files go below the folder: ``()``, TASK or TASK/INDEX."""

    task: str
    number: int
    below: tuple[str, ...]
    kept: Artifacts

    @property
    def name(self) -> str:
        return "/".join(self.below) or f"{self.task}.{self.number}"


class Wanted(NamedTuple):
    element: Element
    artifact: ArtifactView
    parts: tuple[str, ...]


def ls(what: What, attempt: Attempt = None, json: AsJson = False) -> None:
    """List what an element, a task or a whole job has kept.

    Of a task or job those elements are listed that have succeeded.

    \b
    Examples:
      tow artifacts ls flights/count.3
      tow artifacts ls flights --json | jq '.artifacts[].path'
      tow artifacts ls flights/count.3 --attempt 1
    """

    async def work(client: Client) -> int:
        job, elements = await _elements(client, what, attempt)
        rows: list[dict[str, object]] = []
        for element in elements:
            async with aclosing(element.kept.list()) as found:
                async for artifact in found:
                    rows.append(_row(element, artifact))
        if json:
            terminal.write_json({"job": job.id, "artifacts": rows})
            return terminal.OK
        header = ("element", "path", "size", "mode", "modified")
        terminal.table(header, [_shown(row) for row in rows])
        return terminal.OK

    terminal.ask(work)


def get(
    what: What,
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH…]", help="Files and folders of one element.")
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="Where to put them; -: one file to stdout.")
    ] = ".",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
    attempt: Attempt = None,
    json: AsJson = False,
) -> None:
    """Fetch what an element, a task or a whole job has kept.

    An element's files go into DIR, those of an array into DIR/INDEX, those of a whole job into
    DIR/TASK and DIR/TASK/INDEX. A file gets its name when it is whole and checked. Links, pipes
    and devices are left out.

    \b
    Examples:
      tow artifacts get flights/count.3 -o results
      tow artifacts get flights/report table.csv -o - | head
      tow artifacts get flights -o results
    """

    from towline.errors import RequestError

    async def work(client: Client) -> int:
        if json and output == "-":
            raise RequestError("--json and -o - both write to stdout: leave one of them out.")
        job, elements = await _elements(client, what, attempt)
        wanted = await _wanted(elements, paths or [])
        if output == "-":
            return await _to_stdout(wanted)
        files = await _fetch(wanted, Path(output), force)
        size = sum(each.artifact.size_bytes for each in files)
        if json:
            fetched = [str(Path(output).joinpath(*each.parts)) for each in files]
            terminal.write_json({"job": job.id, "files": fetched, "size_bytes": size})
        elif not wanted:
            terminal.say(f"Nothing was written under TOW_OUT by {terminal.safe(what)}: nothing is fetched.")
        else:
            terminal.say(f"Fetched {_count(len(files), 'file')}, {_bytes(size)}, into {output}.")
        return terminal.OK

    terminal.ask(work)


# --- what is meant ----------------------------------------------------------------------------------
async def _elements(client: Client, what: str, attempt: int | None) -> tuple[Job, list[Element]]:
    """The elements that are meant: one, or those of a task or job that have succeeded."""
    from towline.client.artifacts import Artifacts
    from towline.errors import NotFound, RequestError

    named = terminal.reference(what)
    job = await client.job(named.job)
    tasks = [task for task in job.submitted.tasks if named.task in (None, task.name)]
    if not tasks:
        raise NotFound(f"Job {job.name} has no task {named.task!r}.")
    single = named.task is not None and (named.index is not None or tasks[0].size == 1)
    if single:
        index = named.index
        if index is None:
            _, index = await job.only_element(named.task)
        kept = Artifacts(client, job.id, tasks[0].name, index, attempt)
        return job, [Element(tasks[0].name, index, (), kept)]
    if attempt is not None:
        raise RequestError("--attempt is of one element: name it, such as flights/count.3.")
    found: list[Element] = []
    for task in tasks:
        async with aclosing(job.elements(task.name, state="succeeded")) as elements:
            async for element in elements:
                below = () if named.task else (task.name,)
                below += (str(element.index),) if task.size > 1 else ()
                kept = Artifacts(client, job.id, task.name, element.index)
                found.append(Element(task.name, element.index, below, kept))
    if not found:
        raise RequestError(f"Nothing of {terminal.safe(what)} has succeeded yet, so there are no artifacts.")
    return job, found


async def _wanted(elements: list[Element], paths: list[str]) -> list[Wanted]:
    """The files and folders to fetch. Raises NotFound for a path that is not there."""
    from towline.cli.artifacts.receiving import parts_of
    from towline.errors import RequestError

    if paths and len(elements) > 1:
        raise RequestError("PATH is of one element: name it, such as flights/count.3.")
    asked = [path.strip("/") for path in paths]
    found: list[Wanted] = []
    there: dict[str, ArtifactView] = {}
    for element in elements:
        async with aclosing(element.kept.list()) as listed:
            async for artifact in listed:
                there[artifact.path] = artifact
                if not asked or any(f"{artifact.path}/".startswith(f"{path}/") for path in asked):
                    parts = (*element.below, *parts_of(artifact.path))
                    found.append(Wanted(element, artifact, parts))
    for path in asked:
        _check_path(path, there, elements[0].name)
    return found


def _check_path(path: str, there: dict[str, ArtifactView], name: str) -> None:
    """That something can be fetched of what the user has named. Raises NotFound, RequestError."""
    from towline.errors import NotFound, RequestError

    artifact = there.get(path)
    if artifact is None:
        raise NotFound(f"{name} has kept no {path!r}.{_hint(path, list(there))}")
    if artifact.kind == "other":
        raise RequestError(f"{path!r} of {name} is {artifact.why or 'no file'}: that is not fetched.")


def _hint(path: str, there: list[str]) -> str:
    if near := get_close_matches(path, there, 3):
        return f" Did you mean {' or '.join(map(repr, near))}?"
    if not there:
        return " It wrote nothing under TOW_OUT."
    more = f" and {len(there) - 3} more" if len(there) > 3 else ""
    return f" It has kept {', '.join(map(repr, there[:3]))}{more}: `tow artifacts ls` lists them."


# --- fetching ---------------------------------------------------------------------------------------
async def _fetch(wanted: list[Wanted], folder: Path, force: bool) -> list[Wanted]:
    """Fetch all files; returns them. Nothing is written where something is in the way of one."""
    from towline.cli.artifacts.receiving import Destination, in_the_way
    from towline.errors import RequestError

    destination = Destination(folder, force=force)
    files = [each for each in wanted if each.artifact.kind == "file"]
    occupied = [folder.joinpath(*each.parts) for each in files if destination.occupied(each.parts)]
    if occupied:
        raise RequestError(in_the_way(occupied))
    progress = Progress(len(files), sum(each.artifact.size_bytes for each in files))
    try:
        for each in wanted:
            if each.artifact.kind == "folder":
                destination.make_folder(each.parts)
            elif each.artifact.kind != "file":
                what = terminal.safe(f"{each.element.name}: {each.artifact.path} is left out")
                terminal.say(f"{what}: it is {each.artifact.why or 'no file'}.")
            else:
                await _fetch_one(destination, each, progress)
    finally:
        progress.close()
    return files


async def _fetch_one(destination: Destination, each: Wanted, progress: Progress) -> None:
    from towline.errors import Unavailable

    for tries in range(1, TRIES + 1):
        before = progress.bytes
        try:
            async with aclosing(each.element.kept.read(each.artifact.path)) as pieces:
                await destination.take(each.parts, each.artifact, pieces, progress.taken)
        except Unavailable:
            if tries == TRIES:
                raise
            progress.bytes = before
        else:
            progress.files += 1
            return


async def _to_stdout(wanted: list[Wanted]) -> int:
    from towline.errors import RequestError

    files = [each for each in wanted if each.artifact.kind == "file"]
    if len(files) != 1:
        some = ", ".join(terminal.safe(each.artifact.path) for each in files[:5]) or "none"
        raise RequestError(f"-o - writes one file, and {len(files)} are meant: name one PATH ({some}).")
    # Closed at once where the reader of a pipe has gone, and not when the garbage collector comes by.
    async with aclosing(files[0].element.kept.read(files[0].artifact.path)) as pieces:
        async for piece in pieces:
            sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return terminal.OK


class Progress:
    """One line on a terminal's stderr while files come in; nothing elsewhere."""

    def __init__(self, files: int, size_bytes: int) -> None:
        self.files = 0
        self.bytes = 0
        self._of = (files, size_bytes)
        self._shown_s = 0.0
        self._on = sys.stderr.isatty()

    def taken(self, count: int) -> None:
        self.bytes += count
        if self._on and time.monotonic() - self._shown_s >= TOLD_EVERY_S:
            self._shown_s = time.monotonic()
            files, size = self._of
            sys.stderr.write(f"\r\x1b[K{self.files} of {files} files, {_bytes(self.bytes)} of {_bytes(size)}")
            sys.stderr.flush()

    def close(self) -> None:
        if self._on and self._shown_s:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


# --- what is shown ----------------------------------------------------------------------------------
def _row(element: Element, artifact: ArtifactView) -> dict[str, object]:
    return {
        "task": element.task,
        "index": element.number,
        "path": artifact.path,
        "kind": artifact.kind,
        "size_bytes": artifact.size_bytes,
        "modified_at": artifact.modified_at,
        "mode": artifact.mode,
        "why": artifact.why,
    }


def _shown(row: dict[str, object]) -> tuple[object, ...]:
    path, size = row["path"], None
    if row["kind"] == "folder":
        path = f"{path}/"
    elif row["kind"] == "file":
        size = _bytes(int(str(row["size_bytes"])))
    else:
        path = f"{path} ({row['why']})"
    return f"{row['task']}.{row['index']}", path, size, row["mode"], row["modified_at"]


def _bytes(count: int) -> str:
    from towline.model.units import human_bytes

    return human_bytes(count)


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
