"""Trees into Structs: a reader for each type of the model, made once from its annotations.

A reader takes ``(reading, holder, key, where)``, reads ``holder[key]``, and returns the value or
INVALID, having noted what is wrong. A Struct with a broken field is still made, with that field's
default, so that later checks find more; nothing made so leaves the loader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any, cast

from msgspec import Struct

from towline.model.document.conditions import read_conditions, read_preferences
from towline.model.document.devices import read_gpu
from towline.model.document.fields import (
    EXAMPLES,
    Field,
    choices,
    example_of,
    fields_of,
    is_struct,
    item_type,
)
from towline.model.document.lines import Where
from towline.model.document.reading import INVALID, Reading, Scope
from towline.model.document.shorthand import read_array, read_capabilities, read_needs, read_pools
from towline.model.job import Array, Condition, Gpu, JobSpec, Need, Param, Preference, TaskSpec
from towline.model.names import did_you_mean, either, kind, shown, text_fault
from towline.model.template import ELEMENT_FIELDS

Reader = Callable[[Reading, Any, Any, Where], Any]
StructReader = Callable[[Reading, Any, Any, Where | None], Any]


def scope_of(owner: type[Struct], name: str) -> Scope | None:
    """What ``{{…}}`` means in a field; None: the same as in the Struct around it."""
    if owner is TaskSpec:
        return "element" if name in ELEMENT_FIELDS else "params"
    if owner is JobSpec:
        return "params" if name in ("labels", "queue", "pool") else "plain"
    return None


@cache
def struct_reader(struct: type[Struct]) -> StructReader:
    """The reader of a mapping with this Struct's fields; ``where`` is None for the document itself."""
    plans: dict[str, tuple[Field, Reader, Scope | None]] = {
        name: (field, field_reader(field), scope_of(struct, field.name))
        for name, field in fields_of(struct).items()
    }
    missing_matters = [field for field in fields_of(struct).values() if field.required]

    def read(reading: Reading, holder: Any, key: Any, where: Where | None) -> Any:
        mapping = holder[key]
        if not isinstance(mapping, dict):
            return reading.bad(where, *_not_a_mapping(mapping, key, struct))
        values: dict[str, Any] = {}
        for name in cast("dict[Any, Any]", mapping):
            plan = plans.get(name) if isinstance(name, str) else None
            if plan is None:
                reading.bad(
                    Where(where, name if isinstance(name, str) else shown(name)), *_unknown(struct, name)
                )
                continue
            field, read_field, scope = plan
            if scope is not None:
                reading.scope = scope
            value = read_field(reading, mapping, name, Where(where, name))
            if value is not INVALID:
                values[field.name] = value
        for field in missing_matters:
            if field.name not in values:
                values[field.name] = _stand_in(field)
                if field.user_name not in mapping:
                    example = example_of(field) or "…"
                    reading.bad(
                        Where(where, field.user_name), "is missing", f"write {field.user_name}: {example}"
                    )
        return struct(**values)

    return read


def _stand_in(field: Field) -> Any:
    """For a required field that is missing: the pass goes on to find more, then fails."""
    return {} if item_type(field.type) is not None else ""


def _not_a_mapping(value: object, key: object, struct: type[Struct]) -> tuple[str, str]:
    names = ", ".join(list(fields_of(struct))[:4])
    example = EXAMPLES.get(str(key))
    if example is None or not example.startswith("{"):
        return f"is {kind(value)}, not a mapping", f"write a mapping of {names}, …"
    return f"is {kind(value)}, not a mapping", f"write a mapping such as {example}"


def _unknown(struct: type[Struct], name: object) -> tuple[str, str]:
    if not isinstance(name, str):
        return f"{shown(name)} is not a name", "write a text"
    if name == "<<":
        return "merge keys are not part of YAML 1.2", "write the fields out"
    if struct is JobSpec and name in fields_of(TaskSpec):
        return "a job has no such field, a task has", f"move it to tasks.NAME.{name}"
    if struct is TaskSpec and name in fields_of(JobSpec) and name != "name":
        return "a task has no such field, the job has", f"move {name} to the top of the file"
    what = struct.__name__.removesuffix("Spec").lower()
    return f"{what} has no field {shown(name)}", did_you_mean(name, fields_of(struct))


_SPECIAL: dict[Any, Reader] = {
    tuple[Need, ...]: read_needs,
    tuple[Condition, ...]: read_conditions,
    tuple[Preference, ...]: read_preferences,
    Array: read_array,
    Gpu: read_gpu,
}
"""Types with notations of their own."""


def field_reader(field: Field) -> Reader:
    """The reader of one field, by its type."""
    if field.owner is JobSpec and field.name == "params":
        return _params_read_before
    special = _SPECIAL.get(field.type)
    if special is not None:
        reader = special
    elif field.owner is TaskSpec and field.name == "capabilities":
        reader = read_capabilities
    elif field.owner is JobSpec and field.name == "pool":
        reader = read_pools
    elif field.quantity is not None:
        reader = _quantity_reader(field)
    elif field.type in (int, float):
        reader = _number_reader(field)
    else:
        reader = _type_reader(field.type)
    return _or_nothing(reader, field)


def _or_nothing(reader: Reader, field: Field) -> Reader:
    """Null stands for "not said" where that is a value, and gets a helpful answer where it is not."""
    example = example_of(field)
    remedy = "leave the field out" + (f", or write {field.user_name}: {example}" if example else "")

    def read(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
        if holder[key] is None:
            return None if field.optional else reading.bad(where, "is empty", remedy)
        return reader(reading, holder, key, where)

    return read


@cache
def _type_reader(hint: Any) -> Reader:
    item, words = item_type(hint), choices(hint)
    if hint == Param:
        return read_param
    if hint is str:
        return Reading.text
    if hint is bool:
        return _read_bool
    if words is not None:
        return _choice_reader(words)
    if is_struct(hint):
        return struct_reader(hint)
    assert item is not None, f"no reader for {hint}"
    read_item = _type_reader(item)
    return _dict_reader(read_item) if str(hint).startswith("dict") else _list_reader(read_item)


def _params_read_before(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    return dict(reading.params)


def read_param(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    """A parameter's default. A number that is not written as Python would (08, 1.50) stays text."""
    value = reading.scalar(holder, key, where)
    if value is INVALID or isinstance(value, str | bool):
        return value
    if not isinstance(value, int | float):
        return reading.bad(
            where,
            f"is {kind(value)}, but has to be a text, a number, true or false",
            "give it a default, such as 2013",
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return reading.bad(
            where, f"is {shown(value)}, which needs over 64 bits", "quote it to have it as text"
        )
    written = reading.lines.written(holder, key) if reading.lines is not None else None
    if written is not None and written != str(value):
        holder[key] = written
        return written
    return value


def _read_bool(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
    value = reading.scalar(holder, key, where)
    if isinstance(value, bool) or value is INVALID:
        return value
    return reading.bad(where, f"is {shown(value)}, but has to be true or false", "write true or false")


def _choice_reader(words: tuple[str, ...]) -> Reader:
    def read(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
        value = reading.text(holder, key, where)
        if value in words or value is INVALID:
            return value
        return reading.bad(where, f"is {shown(value)}", f"write {either(words)}")

    return read


def _number_reader(field: Field) -> Reader:
    whole = field.type is int
    low, high = field.bounds or (-(2**63), 2**63 - 1)
    what = "a whole number" if whole else "a number"
    remedy = f"write {what} from {low:,} to {high:,}" if field.bounds else f"write {what}"

    def read(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
        value = reading.scalar(holder, key, where, remedy)
        if value is INVALID:
            return value
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            return reading.bad(where, f"is {shown(value)}, but has to be {what}", remedy)
        if not low <= value <= high:
            return reading.bad(where, f"is {shown(value)}", remedy)
        return value if whole else float(value)

    return read


def _quantity_reader(field: Field) -> Reader:
    assert field.quantity is not None
    parse, show = field.quantity.parse, field.quantity.show
    low, high = field.bounds or (0, 2**63 - 1)
    remedy = f"write an amount such as {field.quantity.example}"

    def read(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
        value = reading.scalar(holder, key, where, remedy)
        if value is INVALID:
            return value
        written = reading.lines.written(holder, key) if reading.lines is not None else None
        said = written if written is not None else shown(value)
        try:
            amount = parse(value)
        except ValueError as error:
            return reading.bad(where, f"is {said}", str(error))
        if not low <= amount <= high:
            return reading.bad(where, f"is {said}", f"write {show(int(low))} to {show(int(high))}")
        return amount

    return read


def _list_reader(read_item: Reader) -> Reader:
    def read(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
        items = holder[key]
        if not isinstance(items, list):
            return reading.bad(where, f"is {kind(items)}, not a list", _list_remedy(key, items))
        values = [
            read_item(reading, items, at, Where(where, at)) for at in range(len(cast("list[Any]", items)))
        ]
        return tuple([value for value in values if value is not INVALID])

    return read


def _list_remedy(key: object, value: object) -> str:
    if key == "command" and isinstance(value, str):
        text = value if len(value) <= 200 else "…"
        return f'write ["sh", "-c", {json.dumps(text)}], or the program and its arguments as a list'
    if key == "mounts" and isinstance(value, str) and value.count(":") in (1, 2):
        source, target, *_ = value.split(":")
        return f"write [{{source: {source}, target: {target}}}]"
    example = EXAMPLES.get(str(key))
    return f"write a list such as {example}" if example else "write a list"


def _dict_reader(read_value: Reader) -> Reader:
    def read(reading: Reading, holder: Any, key: Any, where: Where) -> Any:
        mapping = holder[key]
        if not isinstance(mapping, dict):
            example = EXAMPLES.get(str(key), "{NAME: value}")
            return reading.bad(
                where, f"is {kind(mapping)}, not a mapping", f"write a mapping such as {example}"
            )
        values: dict[str, Any] = {}
        for name in cast("dict[Any, Any]", mapping):
            if not isinstance(name, str) or text_fault(name) is not None:
                reading.bad(where, f"{shown(name)} is not a name", "write a text")
                continue
            value = read_value(reading, mapping, name, Where(where, name))
            if value is not INVALID:
                values[name] = value
        return values

    return read
