"""``{{…}}`` in a job file: parameters at load, the element's index and value at its start.

    {{params.year}}     in any text of a task or label: replaced when the file is loaded
    {{index}} {{value}} in command, args, env and inputs: replaced at the node, element by element
    {{{{                is a literal {{

A parameter's value is never read as a template itself. What stays for the node stands in the spec
in one canonical form: ``{{index}}`` and ``{{value}}`` without spaces, literal ``{{`` escaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from towline.model.job import Param, TaskSpec
from towline.model.names import did_you_mean, shown

ELEMENT_FIELDS = ("command", "args", "env", "inputs")
"""The fields of a task in which ``{{index}}`` and ``{{value}}`` may stand."""

# The escape, a reference, or braces that are neither. Of "{{{index}}}" the inner braces count.
_TOKEN = re.compile(r"\{\{\{\{|\{\{([^{}]*)\}\}|\{\{(?!\{)")
_ESCAPE = "{{{{"
_ELEMENT = ("index", "value")

Parts = list[str | tuple[str]]
"""A template taken apart: literal texts, and ``(name,)`` for each reference."""


class TemplateError(ValueError):
    """A template that cannot be used. ``remedy`` says what to write instead."""

    def __init__(self, message: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(message)


def param_text(value: Param) -> str:
    """A parameter as text, as a job file would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def parse(text: str) -> Parts:
    """Take a template apart. Raises TemplateError for ``{{`` that is neither a reference nor escaped."""
    parts: Parts = []
    at = 0
    for match in _TOKEN.finditer(text):
        parts.append(text[at : match.start()])
        at = match.end()
        if match[0] == _ESCAPE:
            parts.append("{{")
        elif match[1] is None:
            raise TemplateError(f"has {{{{ without }}}} in {shown(text)}", "write {{{{ for a literal {{")
        else:
            parts.append((match[1].strip(),))
    parts.append(text[at:])
    return parts


def substitute(text: str, params: Mapping[str, Param], *, element: bool) -> str:
    """Replace parameters. With ``element`` the result is a template for the node, else a plain text.

    Raises TemplateError for unknown names, and for index and value where ``element`` is not set.
    """
    done: list[str] = []
    literal = ""
    for part in parse(text):
        if isinstance(part, str):
            literal += part
            continue
        (name,) = part
        if name.startswith("params."):
            literal += param_text(_param(name.removeprefix("params."), params))
        elif name in _ELEMENT and element:
            done += (literal.replace("{{", _ESCAPE), "{{" + name + "}}")
            literal = ""
        else:
            raise _unknown(name)
    return "".join(done) + (literal.replace("{{", _ESCAPE) if element else literal)


def _param(name: str, params: Mapping[str, Param]) -> Param:
    if name in params:
        return params[name]
    raise TemplateError(
        f"there is no parameter {shown(name)}",
        did_you_mean(name, params) or "declare it under params, with its default",
    )


def _unknown(name: str) -> TemplateError:
    if name in _ELEMENT:
        return TemplateError(
            f"{{{{{name}}}}} cannot stand here, since all elements of a task are placed alike",
            f"it may stand in {', '.join(ELEMENT_FIELDS)}",
        )
    return TemplateError(
        f"{shown('{{' + name + '}}')} means nothing",
        "write {{params.NAME}}, {{index}} or {{value}}, or {{{{ for a literal {{",
    )


def names_in(text: str) -> set[str]:
    """The names that a template refers to."""
    if "{{" not in text:
        return set()
    return {match[1] for match in _TOKEN.finditer(text) if match[1] is not None}


def escape(text: str) -> str:
    """The template that gives this text."""
    return text.replace("{{", _ESCAPE)


def render(text: str, index: int, value: str | None) -> str:
    """The text of one element. Never raises: braces that mean nothing stay as they are."""
    if "{{" not in text:
        return text

    def replacement(match: re.Match[str]) -> str:
        name = match[1]
        if name == "index":
            return str(index)
        if name == "value":
            return value or ""
        return "{{" if match[0] == _ESCAPE else match[0]

    return _TOKEN.sub(replacement, text)


def _render_all(texts: tuple[str, ...] | None, index: int, value: str | None) -> tuple[str, ...] | None:
    if texts is None or not any("{{" in text for text in texts):
        return texts
    return tuple([render(text, index, value) for text in texts])


def _render_values(texts: dict[str, str], index: int, value: str | None) -> dict[str, str]:
    for text in texts.values():
        if "{{" in text:
            return {key: render(text, index, value) for key, text in texts.items()}
    return texts


def render_task(
    spec: TaskSpec, index: int, value: str | None
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None, dict[str, str], dict[str, str]]:
    """(command, args, env, inputs) of one element; the spec's own objects where nothing is replaced."""
    return (
        _render_all(spec.command, index, value),
        _render_all(spec.args, index, value),
        _render_values(spec.env, index, value),
        _render_values(spec.inputs, index, value),
    )
