"""A JobSpec back into the notation of a job file."""

from __future__ import annotations

from typing import Any, cast

from msgspec import Struct

from towline.model.document.conditions import conditions_notation, preferences_notation
from towline.model.document.devices import gpu_notation
from towline.model.document.fields import Field, fields_of
from towline.model.document.reader import scope_of
from towline.model.document.reading import Scope
from towline.model.job import Array, Condition, Gpu, JobSpec, Need, Preference
from towline.model.template import escape


def to_document(spec: JobSpec) -> dict[str, Any]:
    """The tree of a job file that loads as this spec; what has its default is left out."""
    return _struct(spec, "plain")


def _struct(struct: Struct, scope: Scope) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for user_name, field in fields_of(type(struct)).items():
        value = getattr(struct, field.name)
        if field.required or value != field.default:
            tree[user_name] = to_notation(field, value, scope_of(field.owner, field.name) or scope)
    return tree


def to_notation(field: Field, value: Any, scope: Scope = "plain") -> Any:
    """One field's value as a job file writes it."""
    if value is None:
        return None
    if field.type == tuple[Condition, ...]:
        value = conditions_notation(value)
    elif field.type == tuple[Preference, ...]:
        value = preferences_notation(value)
    elif field.owner is JobSpec and field.name == "pool" and len(value) == 1:
        (value,) = value
    return field.quantity.show(value) if field.quantity is not None else _value(value, scope)


def _value(value: Any, scope: Scope) -> Any:
    if isinstance(value, Need):
        return {"task": value.task, "each": True} if value.each else value.task
    if isinstance(value, Array):
        return _array(value)
    if isinstance(value, Gpu):
        return _value(gpu_notation(value), scope)
    if isinstance(value, Struct):
        return _struct(value, scope)
    if isinstance(value, dict):
        return {name: _value(item, scope) for name, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, tuple):
        return [_value(item, scope) for item in cast("tuple[Any, ...]", value)]
    # In element fields the spec holds templates already, elsewhere plain texts.
    return escape(value) if isinstance(value, str) and scope == "params" else value


def _array(array: Array) -> str | list[str]:
    if array.values is not None:
        return [escape(value) for value in array.values]
    return f"{array.first}-{array.last}"
