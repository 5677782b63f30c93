"""What is sent to a server: a job as a JSON tree, its parameters, and the folder of its relative paths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from towline.errors import InvalidDocument
from towline.model.document import load_file, load_tree, to_document
from towline.model.job import JobSpec


class Submission(Struct, frozen=True, kw_only=True):
    """A job, checked here already, where the file's lines are known. The server checks it once more."""

    document: Any
    params: dict[str, Any]
    base_dir: str
    source: str = ""

    @classmethod
    def of_file(cls, path: str | Path, params: Mapping[str, Any] | None = None) -> Submission:
        """A job file. Raises InvalidDocument with everything that is wrong in it."""
        loaded = load_file(path, params)
        return cls(
            document=loaded.tree, params=dict(params or {}), base_dir=loaded.base_dir, source=str(path)
        )

    @classmethod
    def of_tree(
        cls, tree: Any, params: Mapping[str, Any] | None = None, base_dir: str | Path | None = None
    ) -> Submission:
        """A job as dicts and lists, named as in a job file. Raises InvalidDocument."""
        load_tree(tree, params)
        return cls(document=tree, params=dict(params or {}), base_dir=_absolute(base_dir))

    @classmethod
    def of(
        cls,
        job: JobSpec | Mapping[str, Any] | str | Path,
        params: Mapping[str, Any] | None = None,
        base_dir: str | Path | None = None,
    ) -> Submission:
        """Whatever a program has: a file's path, a tree or a JobSpec."""
        if isinstance(job, str | Path):
            return cls.of_file(job, params)
        return cls.of_tree(to_document(job) if isinstance(job, JobSpec) else dict(job), params, base_dir)

    def located(self, error: InvalidDocument) -> InvalidDocument:
        """The server's refusal with the file's name in it."""
        return InvalidDocument(error.problems, error.source or self.source)


def _absolute(base_dir: str | Path | None) -> str:
    return str(Path(base_dir or ".").absolute())
