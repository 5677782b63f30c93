"""Specs written as documents load as the same specs, and trees of any kind never raise but as said."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.model.loading import minimal, tree_problems

from towline.errors import InvalidDocument
from towline.model.document import load_tree, parse_text, to_document
from towline.model.document.fields import fields_of
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
    Preference,
    Resources,
    Retries,
    TaskSpec,
)
from towline.model.names import CAPABILITIES
from towline.model.schema import DESCRIPTIONS, json_schema
from towline.model.states import RETRYABLE
from towline.model.template import escape

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)
POOLS = NAMES.filter(lambda name: name not in ("any", "cluster"))
VARIABLES = st.from_regex(r"[A-SU-Z_][A-Za-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=20)
PATHS = st.from_regex(r"/[a-z{}]{1,5}(/[a-z0-9{}]{1,5}){0,2}", fullmatch=True)
TARGETS = PATHS.filter(lambda path: path.split("/")[1] not in ("proc", "sys", "dev", "tow"))
TIMES = st.integers(1, 10**9)

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9_./-]{0,6}[a-z0-9])?", fullmatch=True).filter(
    lambda name: not name.startswith("gpu.") and name != "weight"
)
LABEL_VALUES = PRINTABLE | st.sampled_from(
    ["exists", "absent", "in [a]", "not in a", "!= x", ">= 3", "[a, b]", " a ", "{{value}}", "{{{{"]
)
NUMBERS = st.integers(-(10**9), 10**9).map(str) | st.sampled_from(["0.5", "+3", ".25", "7."])
COMPARED = (
    st.tuples(st.sampled_from(["=", "!="]), st.tuples(LABEL_VALUES))
    | st.tuples(st.sampled_from(["in", "not in"]), st.lists(LABEL_VALUES, min_size=1, max_size=2).map(tuple))
    | st.tuples(st.sampled_from(["exists", "absent"]), st.just(()))
    | st.tuples(st.sampled_from(["<", "<=", ">", ">="]), st.tuples(NUMBERS))
)
CONDITIONS = st.builds(lambda key, both: Condition(key=key, op=both[0], values=both[1]), LABELS, COMPARED)
PREFERENCES = st.builds(
    lambda each, weight: Preference(key=each.key, op=each.op, values=each.values, weight=weight),
    CONDITIONS,
    st.just(1) | st.integers(1, 1000),
)
MODELS = st.lists(st.sampled_from(["A100", "T4", "{{x}}", "an L40S"]), unique=True).map(tuple)
GPUS = (
    st.builds(
        lambda count, models, memory: Gpu(count=count, model=models, memory_bytes=memory),
        st.integers(1, 1024),
        MODELS,
        st.none() | st.integers(2**20, 2**50),
    )
    | st.builds(lambda milli, models: Gpu(milli=milli, model=models), st.integers(1, 1000), MODELS)
    | st.builds(
        lambda count, name: Gpu(count=count, slice=name),
        st.integers(1, 7),
        st.sampled_from(["1g.5gb", "3g.20gb"]),
    )
)
SECRETS = st.dictionaries(VARIABLES, NAMES, max_size=2)


def placed(draw: st.DrawFn, timeout_ms: int | None) -> dict[str, Any]:
    """Where a task may run, and when; often nothing is said about it."""
    if not draw(st.booleans()):
        return {}
    return {
        "where": tuple(draw(st.lists(CONDITIONS, max_size=3))),
        "prefer": tuple(draw(st.lists(PREFERENCES, max_size=2))),
        "spread": draw(st.none() | LABELS.filter(lambda label: label != "runtime")),
        "tolerate": tuple(draw(st.lists(LABELS | LABELS.map(lambda key: f"{key}=a{{{{b"), max_size=2))),
        "limit": draw(st.none() | st.builds(Limit, key=NAMES, max=st.integers(1, 10**7))),
        "expect_ms": draw(st.none() | st.integers(1, 10**9 if timeout_ms is None else timeout_ms)),
        "secrets": draw(SECRETS),
    }


def isolated(draw: st.DrawFn) -> dict[str, Any]:
    """What a container may be given and may demand."""
    privileged = draw(st.booleans())
    demands = ["memory", "cpu", "pids", "disk", "rootfs"] + ([] if privileged else ["userns", "seccomp"])
    return {
        "user": draw(st.none() | st.sampled_from(["0", "1000:1000", "nobody"])),
        "capabilities": tuple(draw(st.lists(st.sampled_from(CAPABILITIES), unique=True, max_size=3))),
        "privileged": privileged,
        "require": tuple(draw(st.lists(st.sampled_from(demands), max_size=3))),
    }


@st.composite
def tasks(draw: st.DrawFn, needed: list[str]) -> TaskSpec:
    oci = draw(st.booleans())
    array = draw(st.none() | st.builds(lambda a, n: Array(first=a, last=a + n), TIMES, st.integers(0, 99)))
    if draw(st.booleans()):
        values = tuple(draw(st.lists(TEXTS, min_size=1, max_size=4)))
        array = Array(first=0, last=len(values) - 1, values=values)
    ends = st.sampled_from(["", "{{index}}"] + (["{{value}}"] if array is not None and array.values else []))
    templates = st.builds(lambda text, end: escape(text) + end, TEXTS, ends)
    needs = draw(st.lists(st.sampled_from(needed), unique=True)) if needed else []
    targets = draw(st.lists(TARGETS, min_size=len(needs) + 2, max_size=len(needs) + 2, unique=True))
    command = (draw(templates.filter(bool)), *draw(st.lists(templates, max_size=3)))
    mounts = [
        Mount(source=draw(PATHS), target=target, readonly=draw(st.booleans())) for target in targets[-2:]
    ]
    first, factor, jitter = draw(TIMES), draw(st.floats(1, 1000)), draw(st.floats(0, 1))
    timeout_ms = draw(st.none() | TIMES)
    return TaskSpec(
        image="oci:./" + draw(PRINTABLE) + "x:1" if oci else None,
        runtime=draw(st.sampled_from(["oci", "docker"])) if oci else "process",
        command=None if oci and draw(st.booleans()) else command,
        env=draw(st.dictionaries(VARIABLES, templates, max_size=3)),
        workdir=draw(st.none() | PATHS),
        resources=Resources(
            cpu_milli=draw(st.integers(1, 10**6)),
            memory_bytes=draw(st.integers(2**20, 2**50)),
            pids=draw(st.integers(1, 1000)),
            disk_bytes=draw(st.none() | st.integers(2**20, 2**50)),
            gpu=draw(st.none() | GPUS),
        ),
        mounts=tuple(mounts[-2:]) if oci else (),
        inputs={name: escape(t if oci else t[1:]) for name, t in zip(needs, targets, strict=False)},
        network=draw(st.sampled_from(["none", "host"])) if oci else "none",
        needs=tuple(Need(task=name) for name in needs),
        array=array,
        timeout_ms=timeout_ms,
        grace_ms=draw(TIMES),
        retries=Retries(
            limit=draw(st.integers(0, 9)),
            lost=draw(st.integers(0, 9)),
            backoff=Backoff(first_ms=first, factor=factor, max_ms=first + draw(TIMES), jitter=jitter),
            on=draw(st.none() | st.lists(st.sampled_from([r.value for r in RETRYABLE])).map(tuple)),
        ),
        on_disconnect=draw(st.sampled_from(["keep", "stop", "wait"])),
        logs=Logs(max_bytes=draw(st.integers(1, 2**40))),
        **placed(draw, timeout_ms),
        **(isolated(draw) if oci else {}),
    )


@st.composite
def specs(draw: st.DrawFn) -> JobSpec:
    made: dict[str, TaskSpec] = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        made[name] = draw(tasks([*made]))
    params = st.dictionaries(
        st.from_regex(r"[A-Za-z_][a-z0-9_-]{0,5}", fullmatch=True),
        TEXTS
        | st.integers(-(2**63), 2**63 - 1)
        | st.booleans()
        | st.floats(allow_nan=False, allow_infinity=False),
        max_size=3,
    )
    return JobSpec(
        name=draw(NAMES),
        tasks=made,
        params=draw(params),
        labels=draw(st.dictionaries(NAMES.map(lambda n: n.strip("-_") or "x"), PRINTABLE)),
        priority=draw(st.integers(0, 100)),
        queue=draw(NAMES),
        pool=draw(st.just(("any",)) | st.lists(POOLS, max_size=3, unique=True).map(tuple)),
    )


@given(specs())
def test_a_spec_as_document_loads_as_itself(spec):
    document = to_document(spec)
    assert load_tree(document) == spec
    assert load_tree(msgspec.json.decode(msgspec.json.encode(document))) == spec
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=JobSpec) == spec
    assert schema_faults(document, json_schema()) == []


@given(specs())
def test_a_spec_as_json_file_loads_as_itself(spec):
    text = json.dumps(to_document(spec))
    parsed = parse_text(text)
    assert load_tree(parsed.tree, lines=parsed.lines) == spec


NAMED = [name for struct in DESCRIPTIONS for name in fields_of(struct)]
SHORT = ["count", "model", "slice", "weight", "in", "not in", ">=", "=", "exists", "gpu.model"]
KEYS = st.sampled_from([*NAMED, *SHORT, "a", "task", "each", "year", "x y", "\0", ""])
WORDS = ["a", "0-3", "5-1", "oci:x", "process", "{{index}}", "{{params.a}}", "{{", "\ud800", "\0", "64Mi"]
WORDS += ["exists", "!= a", ">= 3", ">= a", "in [a]", "NET_RAW", "1g.5gb", "busybox", "userns", "1000:1"]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**40), math.nan, math.inf, 1e308])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(WORDS)
)
TREES = st.recursive(
    LEAVES,
    lambda tree: st.lists(tree, max_size=4) | st.dictionaries(KEYS | st.integers(), tree, max_size=6),
)


@given(TREES, st.dictionaries(st.text(max_size=3), LEAVES, max_size=2))
def test_trees_from_anybody_give_a_spec_or_problems(tree, overrides):
    check_load(tree, overrides)


@given(st.dictionaries(st.sampled_from([*fields_of(TaskSpec)]), TREES, max_size=8))
def test_tasks_from_anybody_give_a_spec_or_problems(fields):
    check_load(minimal(**fields), {})
    check_load(
        {"name": "x", "params": fields, "labels": fields, "tasks": {"a": fields, "b": fields}}, {"a": "1"}
    )


def check_load(tree: object, overrides: dict[str, Any]) -> None:
    try:
        spec = load_tree(tree, overrides)
    except InvalidDocument as error:
        assert error.problems
        for problem in error.problems:
            assert str(problem).isprintable() and len(str(problem)) < 2_000
    else:
        assert load_tree(to_document(spec)) == spec
        msgspec.msgpack.encode(spec)


def test_a_tree_nested_without_end_is_refused():
    tree: Any = {}
    for _ in range(100_000):
        tree = {"a": [tree]}
    assert tree_problems(tree)
    assert tree_problems(minimal(env=tree))
    assert tree_problems(minimal(command=[tree]))
    while tree:  # taken apart by hand: the interpreter would recurse
        tree = tree["a"][0]


# --- the schema -------------------------------------------------------------------------------------


def schema_faults(value: object, schema: dict[str, Any], path: str = "$") -> list[str]:
    """Where a value breaks a schema, for the part of JSON Schema that ours uses."""
    known = {"$schema", "title", "description", "default", "examples", "type", "anyOf", "enum", "pattern"}
    known |= {"properties", "required", "additionalProperties", "propertyNames", "items", "minItems"}
    assert set(schema) <= known | {"minimum", "maximum"}, schema
    faults: list[str] = []
    types = schema.get("type", [])
    if types and not any(_is(value, name) for name in ([types] if isinstance(types, str) else types)):
        return [f"{path} is no {types}"]
    if "enum" in schema and value not in schema["enum"]:
        faults.append(f"{path} is none of {schema['enum']}")
    if "anyOf" in schema and all(schema_faults(value, arm, path) for arm in schema["anyOf"]):
        faults.append(f"{path} fits no alternative")
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        faults.append(f"{path} is not like {schema['pattern']}")
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if isinstance(value, int | float) and not low <= value <= high:
        faults.append(f"{path} is out of bounds")
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            faults.append(f"{path} is too short")
        for at, item in enumerate(value):
            faults += schema_faults(item, schema.get("items", {}), f"{path}[{at}]")
    if isinstance(value, dict):
        faults += _mapping_faults(value, schema, path)
    return faults


def _mapping_faults(value: dict[str, Any], schema: dict[str, Any], path: str) -> list[str]:
    faults = [f"{path} lacks {name}" for name in schema.get("required", []) if name not in value]
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        faults += schema_faults(name, schema.get("propertyNames", {}), f"{path}.{name} (name)")
        inner = schema.get("properties", {}).get(name, others)
        if inner is False:
            faults.append(f"{path} has no {name}")
        elif inner is not True:
            faults += schema_faults(item, inner, f"{path}.{name}")
    return faults


def _is(value: object, name: str) -> bool:
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if name in ("number", "integer"):
        return isinstance(value, int if name == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, kinds[name])


def test_the_schema_describes_every_field():
    schema = json_schema()
    task = schema["properties"]["tasks"]["additionalProperties"]
    assert set(schema["properties"]) == set(fields_of(JobSpec))
    assert set(task["properties"]) == set(fields_of(TaskSpec))
    assert "memory" in task["properties"]["resources"]["properties"]
    assert task["properties"]["grace"]["default"] == "10s"
    assert task["properties"]["resources"]["default"] == {}
    assert schema["required"] == ["name", "tasks"]
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    "fields",
    [
        {"comand": []},
        {"command": "true"},
        {"needs": [{"each": True}]},
        {"needs": 3.5},
        {"array": 0},
        {"array": "x"},
        {"array": []},
        {"env": ["A=b"]},
        {"resources": {"pids": 0}},
        {"resources": {"memory": []}},
        {"retries": {"on": ["exit"]}},
        {"runtime": "dokcer"},
        {"mounts": [{"source": "."}]},
        {"resources": {"gpu": {"modle": "A100"}}},
        {"resources": {"gpu": [1]}},
        {"where": "zone"},
        {"where": {"zone": []}},
        {"where": {"zone": {"nope": 1}}},
        {"prefer": {"zone": "b", "weight": 0}},
        {"require": ["nothing"]},
        {"capabilities": "NET_RAW"},
        {"limit": {"key": "a"}},
        {"limit": {"key": "a", "max": 0}},
    ],
)
def test_schema_and_loader_refuse_alike(fields):
    tree = minimal(**fields)
    assert schema_faults(tree, json_schema())
    assert tree_problems(tree)
