"""The fields of the model's Structs as a job file names them: one table for reader, writer and schema."""

from __future__ import annotations

import types
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from towline.model.job import Backoff, JobSpec, Limit, Notice, Param, Resources, Retries
from towline.model.units import Quantity

BOUNDS: dict[tuple[type[Struct], str], tuple[float, float]] = {
    (JobSpec, "priority"): (0, 100),
    (Resources, "memory_bytes"): (1024**2, 2**60),
    (Resources, "pids"): (1, 4_194_304),
    (Resources, "disk_bytes"): (1024**2, 2**60),
    (Limit, "max"): (1, 10_000_000),
    (Retries, "limit"): (0, 1_000),
    (Retries, "lost"): (0, 1_000),
    (Backoff, "factor"): (1, 1_000),
    (Backoff, "jitter"): (0, 1),
}
"""The smallest and largest value of a number, in the model's own unit, where its type does not say it."""

EXAMPLES: dict[str, str] = {
    "name": "flights",
    "tasks": "{hello: {image: oci:./image:1, command: [echo, hello]}}",
    "params": "{year: 2013}",
    "labels": "{team: data}",
    "image": "busybox:1.36",
    "runtime": "oci",
    "command": '["sh", "-c", "echo hello"]',
    "args": '["--year", "2013"]',
    "env": "{LC_ALL: C}",
    "workdir": "/work",
    "resources": "{cpu: 0.5, memory: 64Mi}",
    "mounts": "[{source: ./data, target: /data, readonly: true}]",
    "inputs": "{split: /in/split}",
    "needs": "[split]",
    "array": "0-11",
    "retries": "{limit: 2}",
    "backoff": "{first: 1s, factor: 2, max: 30s}",
    "on": "[exited]",
    "logs": "{max_bytes: 64Mi}",
    "user": '"1000:1000"',
    "capabilities": "[NET_RAW]",
    "require": "[userns, seccomp]",
    "secrets": "{TOKEN: my-token}",
    "where": "{zone: b, gpu.model: [A100, H100]}",
    "prefer": "{zone: b}",
    "spread": "zone",
    "tolerate": "[gpu]",
    "limit": "{key: database, max: 3}",
    "gpu": "{count: 1, model: [A100, H100], memory: 20Gi}",
    "queue": "default",
    "pool": "any",
    "notify": "[{webhook: https://ci.example.org/tow, secret: ci-hook, on: [failed]}]",
    "webhook": "https://ci.example.org/tow",
    "secret": "ci-hook",
}
"""How a field may look, for messages."""
_EXAMPLES_OF: dict[tuple[type[Struct], str], str] = {
    (Backoff, "max"): "30s",
    (Limit, "key"): "database",
    (Limit, "max"): "3",
    (Notice, "on"): "[failed]",
    (Retries, "limit"): "2",
}
"""The same, where fields of two Structs have one name."""


class Field(NamedTuple):
    """One field of a Struct. ``type`` is without ``None`` and ``Annotated``; ``optional``: or null."""

    owner: type[Struct]
    name: str
    user_name: str
    type: Any
    quantity: Quantity | None
    optional: bool
    required: bool
    default: Any

    @property
    def bounds(self) -> tuple[float, float] | None:
        return BOUNDS.get((self.owner, self.name))


def example_of(field: Field) -> str | None:
    """How a field may look."""
    return _EXAMPLES_OF.get((field.owner, field.user_name)) or EXAMPLES.get(field.user_name)


@cache
def fields_of(struct: type[Struct]) -> dict[str, Field]:
    """The fields of a Struct by the name that a job file gives them, in order."""
    hints = get_type_hints(struct, include_extras=True)
    fields: dict[str, Field] = {}
    for info in msgspec.structs.fields(struct):
        bare, quantity, optional = _unwrap(hints[info.name])
        user_name = info.name.removesuffix(quantity.suffix) if quantity else info.name
        default = None if info.required else _default(info)
        fields[user_name] = Field(
            struct, info.name, user_name, bare, quantity, optional, info.required, default
        )
    return fields


def _default(info: msgspec.structs.FieldInfo) -> Any:
    factory: Any = info.default_factory
    return info.default if factory is msgspec.NODEFAULT else factory()


def _unwrap(hint: Any) -> tuple[Any, Quantity | None, bool]:
    if hint == Param:
        return hint, None, False
    optional = False
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (arm for arm in get_args(hint) if arm is not type(None))
        optional = True
    if get_origin(hint) is Annotated:
        bare, *marks = get_args(hint)
        return bare, next((mark for mark in marks if isinstance(mark, Quantity)), None), optional
    return hint, None, optional


def item_type(hint: Any) -> Any:
    """What a ``tuple[X, ...]`` or ``dict[str, X]`` holds; None for every other type."""
    origin = get_origin(hint)
    if origin is tuple:
        return get_args(hint)[0]
    return get_args(hint)[1] if origin is dict else None


def choices(hint: Any) -> tuple[str, ...] | None:
    """The values of a Literal; None for every other type."""
    return get_args(hint) if get_origin(hint) is Literal else None


def is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Struct)
