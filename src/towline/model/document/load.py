"""From a file, a text or a tree to a JobSpec: the one place where job files are read.

Everything here raises InvalidDocument, with all problems at once, and nothing else on bad input,
wherever it comes from.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from towline.errors import InvalidDocument, Problem
from towline.model.document.checks import check_job, check_params
from towline.model.document.lines import Lines, Where
from towline.model.document.reader import read_param, read_values, struct_reader
from towline.model.document.reading import Reading, written_as
from towline.model.document.yaml12 import Refused, parse_yaml, resolve_plain
from towline.model.job import JobSpec, Param
from towline.model.names import did_you_mean, kind, shown, text_fault
from towline.model.template import param_text

MAX_FILE_BYTES = 5 * 1024**2


class Document(NamedTuple):
    """A parsed text. ``tree`` is plain: dict, list, str, int, float, bool, None."""

    tree: Any
    lines: Lines
    source: str


class LoadedFile(NamedTuple):
    """``tree`` is what the API takes as ``document``: as in the file, parameters not replaced;
    ``base_dir`` is the file's folder, absolute."""

    spec: JobSpec
    tree: Any
    base_dir: str


def parse_text(text: bytes | str, source: str = "") -> Document:
    """Parse YAML or JSON. Raises InvalidDocument where it is neither, or has keys twice."""
    document, problems = _parse(text, source)
    if problems:
        raise InvalidDocument(problems, source)
    return document


def load_file(path: str | os.PathLike[str], overrides: Mapping[str, object] | None = None) -> LoadedFile:
    """Read a job file with parameters from the command line. Raises InvalidDocument."""
    source = os.fspath(path)
    document, problems = _parse(_read_file(Path(source), source), source)
    spec = _load(document.tree, overrides or {}, source, document.lines, problems)
    return LoadedFile(spec, document.tree, str(Path(source).absolute().parent))


def load_tree(
    tree: object,
    overrides: Mapping[str, object] | None = None,
    source: str = "",
    lines: Lines | None = None,
) -> JobSpec:
    """Validate a tree as JSON gives it, from anybody. Raises InvalidDocument.

    With ``lines`` (of ``parse_text``) problems have lines, and numbers that stand for texts are
    replaced in the tree by what was written.
    """
    return _load(tree, overrides or {}, source, lines, [])


def _load(
    tree: Any, overrides: Mapping[str, object], source: str, lines: Lines | None, problems: list[Problem]
) -> JobSpec:
    reading = Reading(source, lines)
    reading.problems += problems
    if not isinstance(tree, dict):
        what = "is empty" if tree is None else f"is {kind(tree)}, not a mapping with name and tasks"
        reading.bad(None, what, "`tow init` writes an example")
        reading.finish()
    mapping = cast("dict[Any, Any]", tree)
    reading.params = _read_params(reading, mapping, overrides)
    spec: JobSpec = struct_reader(JobSpec)(reading, [mapping], 0, None)
    check_job(reading, spec, mapping)
    reading.finish()
    return spec


def _read_params(reading: Reading, tree: dict[Any, Any], overrides: Mapping[str, object]) -> dict[str, Param]:
    """The parameters, overridden. They are read first, since texts everywhere may refer to them."""
    where = Where(None, "params")
    declared = tree.get("params", {})
    if not isinstance(declared, dict):
        reading.bad(where, f"is {kind(declared)}, not a mapping", "write a mapping such as {year: 2013}")
        return {}
    declared = cast("dict[Any, Any]", declared)
    params: dict[str, Param] = read_values(reading, declared, where, read_param)
    check_params(reading, params)
    for name, text in overrides.items():
        if name in params:
            params[name] = _override(reading, name, params[name], text)
        elif name not in declared:
            remedy = did_you_mean(name, params) or "declare it under params, with its default"
            reading.bad(None, f"there is no parameter {shown(name)} to override", remedy)
    return params


def _override(reading: Reading, name: str, declared: Param, value: object) -> Param:
    """The new value of a parameter, of the type that its default has."""
    if isinstance(value, bool | int | float):
        value = written_as(value)
    if not isinstance(value, str) or text_fault(value) is not None:
        reading.bad(
            None, f"parameter {shown(name)} is overridden by {kind(value)}", "give a text or a number"
        )
        return declared
    if isinstance(declared, str):
        return value
    plain = resolve_plain(value)
    if isinstance(declared, bool) and isinstance(plain, bool):
        return plain
    if not isinstance(declared, bool) and isinstance(plain, int | float) and not isinstance(plain, bool):
        if isinstance(declared, float) and math.isfinite(plain):
            return float(plain)
        if isinstance(plain, int) and -(2**63) <= plain < 2**63:
            return plain
    what = {bool: "true or false", int: "a whole number", float: "a number"}[type(declared)]
    remedy = f"give {what}, as its default {param_text(declared)} is"
    reading.bad(None, f"parameter {shown(name)} is overridden by {shown(value)}", remedy)
    return declared


def _read_file(path: Path, source: str) -> bytes:
    """A file's bytes. Reads no more than the bound, so that a device or pipe cannot fill the memory."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise _refused(source, "there is no such file", "`tow init` writes an example") from None
    except IsADirectoryError:
        raise _refused(source, "is a folder", f"name the file in it, such as {path / 'job.yaml'}") from None
    except PermissionError:
        raise _refused(source, "you may not read it", "change its permissions") from None
    except (OSError, ValueError) as error:
        raise _refused(source, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise _refused(source, "is over 5 MiB", "split the job, or put data into files that tasks mount")
    return content


def _refused(source: str, message: str, remedy: str = "") -> InvalidDocument:
    return InvalidDocument([Problem("", message, remedy)], source)


def _parse(text: bytes | str, source: str) -> tuple[Document, list[Problem]]:
    # Half surrogate pairs, which have no UTF-8, become bytes that do not decode.
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = Problem("", "is not a text in UTF-8", "save it as UTF-8", line)
        raise InvalidDocument([problem], source) from None
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        problem = Problem("", "contains a NUL character: it is not a text", "name a job file", line)
        raise InvalidDocument([problem], source)
    # Most JSON is YAML. Where it is not (escaped surrogate pairs, U+0085 in a text), it is read as
    # JSON is, and lines are not known.
    as_json = _parse_json(content) if content.lstrip().startswith(b"{") else None
    try:
        tree, lines, problems = parse_yaml(content)
    except Refused as refused:
        if as_json is None:
            raise InvalidDocument([refused.problem], source) from None
        tree, lines, problems = as_json, Lines(), []
    if as_json is not None and as_json != tree:
        tree, lines = as_json, Lines()
    if tree is None:
        raise _refused(source, "is empty", "`tow init` writes an example")
    return Document(tree, lines, source), problems


class _Unlike(ValueError):
    """JSON that the YAML parser refused for a good reason."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise _Unlike
    return mapping


def _no_constant(name: str) -> Any:
    raise _Unlike(name)


def _parse_json(content: bytes) -> Any:
    """The tree of a JSON text with unique keys, or None; what is wrong the YAML parser has told.

    NaN and Infinity are Python's, not JSON's: the YAML parser takes them for texts, and knows their lines.
    """
    try:
        return json.loads(content, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
