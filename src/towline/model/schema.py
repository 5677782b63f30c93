"""The JSON Schema of a job file, made from the same table of fields as its reader.

It describes the notation (names without units, sizes as text, short forms). What only the loader
can know (that a needed task exists, that nothing is a cycle) it does not.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from towline.model.document.conditions import MAX_WEIGHT
from towline.model.document.fields import Field, choices, fields_of, is_struct, item_type
from towline.model.document.write import to_notation
from towline.model.job import (
    Array,
    Backoff,
    Condition,
    Gpu,
    JobSpec,
    Limit,
    Logs,
    Mount,
    Need,
    Notice,
    Param,
    Preference,
    Resources,
    Retries,
    TaskSpec,
)
from towline.model.names import JOB_NAME, PARAM_NAME, TASK_NAME
from towline.model.states import RETRYABLE

DESCRIPTIONS: dict[type[Struct], dict[str, str]] = {
    JobSpec: {
        "name": "The job's name; a later job may have it too, and then stands for it.",
        "tasks": "The steps of the job by name, at most 10,000.",
        "params": "Parameters with their defaults; {{params.NAME}} in a task's texts stands for them.",
        "labels": "Names and values to find the job by.",
        "priority": "0 to 100; higher goes first.",
        "queue": "The queue of the pool in which it waits.",
        "pool": "The pool that gets it; any; or pools of which one gets it. Else the cluster's first.",
        "notify": "Webhooks that hear of its end.",
    },
    TaskSpec: {
        "image": "An image as Docker names it, or oci:PATH[:TAG], docker-archive:PATH, oci-archive:PATH.",
        "runtime": "oci (a container), docker (one by a Docker engine) or process (no isolation).",
        "command": "The program and its arguments; replaces the image's entrypoint and arguments.",
        "args": "Replaces the image's arguments only.",
        "env": "Environment variables.",
        "workdir": "The working folder; by default the image's.",
        "resources": "What one element needs while it runs.",
        "mounts": "Folders of this machine shown in the container.",
        "inputs": "Where the outputs of needed tasks are shown, read-only; of an array each below /INDEX.",
        "network": "none, or the machine's own.",
        "needs": "Tasks that must have succeeded before.",
        "array": "Many elements: a range 0-11, a count 12, or a list of values given as TOW_VALUE.",
        "timeout": "How long one attempt may run.",
        "grace": "From SIGTERM to SIGKILL.",
        "retries": "How often it is tried again.",
        "on_disconnect": "What happens when its node goes silent: keep, stop or wait.",
        "logs": "How much output is kept.",
        "user": "Who the command runs as: UID, UID:GID, or a name of the image.",
        "capabilities": "Linux capabilities that it has, where the node allows it; none by default.",
        "privileged": "No isolation from the node's devices and kernel, where the node allows it.",
        "require": "What the runtime has to protect; the task is placed only where it does.",
        "secrets": "Stored secrets by the names of their files in /run/secrets (TOW_SECRETS).",
        "where": "What has to be true of a node: labels, node, site, runtime, gpu.model, gpu.memory.",
        "prefer": "The same, as a wish: what is met counts its weight.",
        "spread": "A label over whose values the elements are spread.",
        "tolerate": "Taints of nodes that do not keep it away: key or key=value.",
        "limit": "How many elements with the same key are active at once, over all jobs.",
        "expect": "How long an attempt probably takes; helps to fill gaps.",
    },
    Resources: {
        "cpu": "CPUs, such as 0.5 or 500m.",
        "memory": "Memory, such as 64Mi; what uses more is killed.",
        "pids": "Processes and threads at once.",
        "disk": "What it may write to the node's disk, such as 2Gi; not limited by default.",
        "gpu": "GPUs: 2, a share such as 0.5, or a mapping of count, model, memory and slice.",
    },
    Limit: {
        "key": "What is limited; elements of other jobs with the same key count too.",
        "max": "How many are active at once.",
    },
    Mount: {
        "source": "The folder on this machine; relative to the job file.",
        "target": "Where the container sees it.",
        "readonly": "Whether the container may only read it.",
    },
    Retries: {
        "limit": "More tries after a failure.",
        "lost": "More tries after an attempt whose node was lost; 0 makes the task at-most-once.",
        "backoff": "How long a retry waits.",
        "on": "Reasons that are retried; by default all of them.",
    },
    Backoff: {
        "first": "Before the first retry.",
        "factor": "How much longer each time.",
        "max": "The longest.",
        "jitter": "How much of itself it is moved by at most, from 0 to 1.",
    },
    Notice: {
        "webhook": "The URL that a signed message is sent to.",
        "secret": "The stored secret that it is signed with.",
        "on": "As what it has to end: succeeded, failed, cancelled; by default any of them.",
    },
    Logs: {"max_bytes": "Bytes kept of each stream; what is over is dropped and counted."},
}
"""A sentence for each field, by the name that a job file gives it."""

_PATTERNS = {"tasks": TASK_NAME, "params": PARAM_NAME}
_TEXT: dict[str, Any] = {"type": ["string", "number", "boolean"]}
"""Where a text is wanted, numbers and booleans are taken as they are written."""
_NEED: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {
                "task": {"type": "string", "description": "The needed task."},
                "each": {"type": "boolean", "description": "Element i after its element i."},
            },
            "required": ["task"],
            "additionalProperties": False,
        },
    ]
}
_ARRAY: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "pattern": "^\\s*[0-9]+\\s*(-\\s*[0-9]+\\s*)?$"},
        {"type": "integer", "minimum": 1},
        {"type": "array", "minItems": 1, "items": _TEXT},
        {"type": "string", "pattern": "\\{\\{"},
    ]
}
_AMOUNT: dict[str, Any] = {"type": ["number", "string"], "examples": [1, 0.5]}
_GPU: dict[str, Any] = {
    "anyOf": [
        _AMOUNT,
        {
            "type": "object",
            "properties": {
                "count": {**_AMOUNT, "description": "Devices, or a share of one."},
                "model": {
                    "anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT}],
                    "description": "Accepted models.",
                },
                "memory": {
                    "type": ["string", "number"],
                    "description": "The least memory of a device, such as 20Gi.",
                },
                "slice": {
                    "type": "string",
                    "description": "A MIG profile such as 1g.5gb: slices of it in place of devices.",
                },
            },
            "additionalProperties": False,
        },
    ]
}
_VALUES: dict[str, Any] = {"type": "array", "minItems": 1, "items": _TEXT}
_COMPARED: dict[str, Any] = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("in", "not in"), _VALUES),
        **{op: {"type": "boolean"} for op in ("exists", "absent")},
        **dict.fromkeys(("=", "!=", "<", "<=", ">", ">="), _TEXT),
    },
    "additionalProperties": False,
}
_CONDITION: dict[str, Any] = {"anyOf": [_TEXT, _VALUES, _COMPARED]}
_CONDITIONS: dict[str, Any] = {"type": "object", "additionalProperties": _CONDITION}
_WISHES: dict[str, Any] = {
    "type": "object",
    "properties": {"weight": {"type": ["integer", "string"], "minimum": 1, "maximum": MAX_WEIGHT}},
    "additionalProperties": _CONDITION,
}
_NOTATIONS: dict[Any, dict[str, Any]] = {
    tuple[Need, ...]: {"anyOf": [_NEED, {"type": "array", "items": _NEED}]},
    tuple[Condition, ...]: {"anyOf": [_CONDITIONS, {"type": "array", "items": _CONDITIONS}]},
    tuple[Preference, ...]: {"anyOf": [_WISHES, {"type": "array", "items": _WISHES}]},
    Array: _ARRAY,
    Gpu: _GPU,
}
"""What types with notations of their own look like."""


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of what `tow run` and `tow submit` take."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Towline job file",
        **_struct(JobSpec),
    }


def _struct(struct: type[Struct]) -> dict[str, Any]:
    fields = fields_of(struct)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _field(field) for name, field in fields.items()},
        "additionalProperties": False,
    }
    required = [name for name, field in fields.items() if field.required]
    return {**schema, "required": required} if required else schema


def _field(field: Field) -> dict[str, Any]:
    schema = _of_field_type(field)
    if field.optional:
        schema = {"anyOf": [schema, {"type": "null"}]}
    schema = {"description": DESCRIPTIONS[field.owner][field.user_name], **schema}
    if field.required or field.default is None:
        return schema
    return {**schema, "default": to_notation(field, field.default)}


def _of_field_type(field: Field) -> dict[str, Any]:
    if field.quantity is not None:
        return {"type": ["string", "number"], "examples": [field.quantity.example]}
    if field.owner is JobSpec and field.name == "name":
        return {"type": "string", "pattern": _ecma(JOB_NAME.pattern)}
    if field.owner is Retries and field.name == "on":
        return {"type": "array", "items": {"enum": [reason.value for reason in RETRYABLE]}}
    if field.owner is JobSpec and field.name == "pool":
        return {"anyOf": [_TEXT, _VALUES]}
    if field.type in _NOTATIONS:
        return _NOTATIONS[field.type]
    if field.type in (int, float):
        low, high = field.bounds or (None, None)
        kind = "integer" if field.type is int else "number"
        number = {"type": kind, "minimum": low, "maximum": high} if field.bounds else {"type": kind}
        return number if field.owner is JobSpec else {"anyOf": [number, _TEMPLATE]}
    schema = _of_type(field.type)
    pattern = _PATTERNS.get(field.user_name) if field.owner is JobSpec else None
    return schema if pattern is None else {**schema, "propertyNames": {"pattern": _ecma(pattern.pattern)}}


_TEMPLATE: dict[str, Any] = {"type": "string", "pattern": "\\{\\{params\\."}


def _ecma(pattern: str) -> str:
    return "^" + pattern.removesuffix(r"\Z") + "$"


def _of_type(hint: Any) -> dict[str, Any]:
    item, words = item_type(hint), choices(hint)
    if hint is str or hint == Param:
        return _TEXT
    if hint is bool:
        return {"anyOf": [{"type": "boolean"}, _TEMPLATE]}
    if words is not None:
        return {"anyOf": [{"enum": list(words)}, _TEMPLATE]}
    if is_struct(hint):
        return _struct(hint)
    if str(hint).startswith("dict"):
        return {"type": "object", "additionalProperties": _of_type(item)}
    return {"type": "array", "items": _of_type(item)}
