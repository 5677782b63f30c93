"""Short ways to load job files in tests."""

from __future__ import annotations

from typing import Any

import pytest

from towline.errors import InvalidDocument, Problem
from towline.model.document import load_tree, parse_text
from towline.model.job import JobSpec, TaskSpec


def load(text: str, **overrides: object) -> JobSpec:
    document = parse_text(text)
    return load_tree(document.tree, overrides, lines=document.lines)


def problems(text: str, **overrides: object) -> list[Problem]:
    """What is wrong with a file that does not load."""
    with pytest.raises(InvalidDocument) as caught:
        load(text, **overrides)
    return caught.value.problems


def problem(text: str, **overrides: object) -> Problem:
    """The only thing that is wrong with a file."""
    (one,) = problems(text, **overrides)
    return one


def tree_problems(tree: object, **overrides: object) -> list[Problem]:
    with pytest.raises(InvalidDocument) as caught:
        load_tree(tree, overrides)
    return caught.value.problems


def job_text(fields: str, others: str = "") -> str:
    """A job with a task ``a`` that runs ``true`` and has these fields, one a line, from line 6 on."""
    indented = "".join(f"    {line}\n" for line in fields.splitlines())
    runtime = "" if "runtime:" in fields else "    runtime: process\n"
    command = "" if "command:" in fields else "    command: ['true']\n"
    return f"name: job\n{others}tasks:\n  a:\n{runtime}{command}{indented}"


def task_of(fields: str, others: str = "") -> TaskSpec:
    """Task ``a`` of ``job_text``."""
    return load(job_text(fields, others)).tasks["a"]


def minimal(**fields: Any) -> dict[str, Any]:
    """A tree that loads, with fields of its task replaced or added."""
    return {"name": "job", "tasks": {"a": {"runtime": "process", "command": ["true"], **fields}}}
