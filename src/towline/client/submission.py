"""What is sent to a server: a job as a JSON tree, its parameters, and the folder of its relative paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from towline.errors import InvalidDocument, RequestError
from towline.model.document import load_file, load_tree, to_document
from towline.model.job import JobSpec
from towline.model.names import ANY_POOL, POOL_NAME, POOL_NAME_RULE


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

    def into(self, pool: str | Sequence[str]) -> Submission:
        """The same for another pool than the job says: one, ``any``, or several of which one gets it. Raises
        RequestError for what cannot be a pool's name."""
        names = [pool] if isinstance(pool, str) else list(pool)
        if not names:
            raise RequestError("pool names none: give a pool, any, or several pools.")
        for name in names:
            if name == ANY_POOL and len(names) > 1:
                raise RequestError("pool is any beside other pools: give any, or the pools' names alone.")
            if name != ANY_POOL and not POOL_NAME.match(name):
                raise RequestError(f"pool is {name[:100]!r}, but {POOL_NAME_RULE}.")
        given = list(dict.fromkeys(names))
        document = {**self.document, "pool": given[0] if len(given) == 1 else given}
        return structs.replace(self, document=document)

    def located(self, error: InvalidDocument) -> InvalidDocument:
        """The server's refusal with the file's name in it."""
        return InvalidDocument(error.problems, error.source or self.source)


def _absolute(base_dir: str | Path | None) -> str:
    return str(Path(base_dir or ".").absolute())
