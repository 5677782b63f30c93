"""``{{…}}``: parameters at load, index and value at the node, and what it takes to write braces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import task
from tests.unit.model.loading import job_text, load, problem, problems, task_of

from towline.model.document import load_tree, to_document
from towline.model.template import escape, render, render_task, substitute

PARAMS = "params: {year: 2013, name: x, ratio: 0.5, dry: false, month: 08, n: '12', size: 64Mi}\n"


def test_parameters_stand_in_all_texts():
    text = """\
runtime: oci
image: oci:./{{params.name}}:{{ params.year }}
command: ["{{params.ratio}}", "{{params.dry}}", "{{params.month}}"]
env: {Y: "year {{params.year}}"}
workdir: /{{params.name}}
mounts: [{source: "./{{params.name}}", target: "/{{params.name}}", readonly: "{{params.dry}}"}]
resources: {memory: "{{params.size}}", cpu: "{{params.ratio}}", pids: "{{params.n}}"}
array: 1-{{params.n}}
retries: {limit: "{{params.n}}"}
"""
    spec = load(job_text(text, PARAMS + "labels: {l: 'a {{params.name}}'}\n"))
    found = spec.tasks["a"]
    assert found.image == "oci:./x:2013"
    assert found.command == ("0.5", "false", "08")
    assert found.env == {"Y": "year 2013"}
    assert found.workdir == "/x"
    assert found.mounts[0].source == "./x" and found.mounts[0].readonly is False
    assert (found.resources.memory_bytes, found.resources.cpu_milli, found.resources.pids) == (2**26, 500, 12)
    assert found.array is not None and (found.array.first, found.array.last) == (1, 12)
    assert found.retries.limit == 12
    assert spec.labels == {"l": "a x"}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("year", "2014", 2014),
        ("year", "0x10", 16),
        ("ratio", "2", 2.0),
        ("ratio", "1e-3", 0.001),
        ("dry", "true", True),
        ("month", "9", "9"),
        ("name", "true", "true"),
        ("name", "", ""),
    ],
)
def test_an_override_has_the_type_of_the_default(name, text, value):
    found = load(job_text("", PARAMS), **{name: text}).params[name]
    assert found == value and type(found) is type(value)


def test_overrides_from_the_api_may_be_numbers():
    params = load(job_text("", PARAMS), year=2014, dry=True, name=5, ratio=1).params
    assert (params["year"], params["dry"], params["name"], params["ratio"]) == (2014, True, "5", 1.0)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("yaer", "1", "there is no parameter 'yaer' to override (did you mean 'year'?)"),
        (
            "year",
            "soon",
            "parameter 'year' is overridden by 'soon' (give a whole number, as its default 2013",
        ),
        ("year", "1.5", "parameter 'year' is overridden by '1.5' (give a whole number"),
        ("year", "99999999999999999999", "parameter 'year' is overridden by '99999999999999999999'"),
        ("year", "true", "parameter 'year' is overridden by 'true'"),
        (
            "dry",
            "yes",
            "parameter 'dry' is overridden by 'yes' (give true or false, as its default false",
        ),
        ("ratio", ".nan", "parameter 'ratio' is overridden by '.nan' (give a number"),
        ("name", ["x"], "parameter 'name' is overridden by a list"),
        ("name", None, "parameter 'name' is overridden by nothing"),
        ("name", float("nan"), "parameter 'name' is overridden by nothing"),
        ("name", "a\0b", "parameter 'name' is overridden by a text"),
    ],
)
def test_a_wrong_override(name, value, message):
    assert str(problem(job_text("", PARAMS), **{name: value})).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{params.yaer}}", "there is no parameter 'yaer' (did you mean 'year'?)"),
        ("{{foo}}", "'{{foo}}' means nothing (write {{params.NAME}}, {{index}} or {{value}}, or {{{{"),
        ("{{}}", "'{{}}' means nothing"),
        ("{{ .Names }}", "'{{.Names}}' means nothing"),
        ("{{\x1b[2J}}", r"'{{\x1b[2J}}' means nothing"),
        ("a {{ b", "has {{ without }} in 'a {{ b' (write {{{{ for a literal {{)"),
        ("{{value}}", "has {{value}}, but the task's array has no values"),
    ],
)
def test_a_wrong_template(text, message):
    found = problem(job_text(f"command: [{json.dumps(text)}]", PARAMS))
    assert found.where.startswith("tasks.a.command") and found.line == 6
    assert f"{found.message} ({found.remedy})".startswith(message)


@pytest.mark.parametrize(
    "fields",
    [
        "resources: {cpu: '{{index}}'}",
        "workdir: /{{index}}",
        "timeout: '{{value}}'",
        "array: ['{{index}}']",
        "retries: {on: ['{{index}}']}",
    ],
)
def test_index_and_value_stand_only_where_placement_does_not_look(fields):
    found = problems(job_text(fields, PARAMS))[0]
    assert "cannot stand here, since all elements of a task are placed alike" in found.message
    assert found.remedy == "it may stand in command, args, env, inputs"


def test_index_and_value_are_left_for_the_node():
    command = "command: [a, '{{ index }}-{{value}}', '{{{{x}}']"
    found = task_of(command + "\nenv: {I: '{{index}}'}\narray: [de, fr]")
    assert found.command == ("a", "{{index}}-{{value}}", "{{{{x}}")
    command, args, env, inputs = render_task(found, 1, "fr")
    assert command == ("a", "1-fr", "{{x}}") and env == {"I": "1"} and args is None and inputs == {}


def test_nothing_is_made_where_nothing_is_replaced():
    plain = task("echo", "{x}", env={"A": "b"}, inputs={"a": "in/a"})
    command, args, env, inputs = render_task(plain, 3, None)
    assert command is plain.command and args is None and env is plain.env and inputs is plain.inputs


def test_braces_can_be_written():
    assert substitute("{{{{index}}", {}, element=False) == "{{index}}"
    assert render("{{{{index}} {{index}} {{{index}}} {x} }}", 7, None) == "{{index}} 7 {7} {x} }}"


def test_the_node_leaves_alone_what_means_nothing():
    assert render("{{foo}} {{ {{", 7, None) == "{{foo}} {{ {{"


def test_a_parameter_is_never_a_template_itself():
    found = load(job_text("command: ['{{params.name}}']", PARAMS), name="{{index}} {{{{")
    assert found.tasks["a"].command == ("{{{{index}} {{{{{{{{",)
    assert render(found.tasks["a"].command[0], 3, None) == "{{index}} {{{{"


BRACES = st.text(alphabet="{}ix", max_size=12)


@given(BRACES)
def test_every_text_can_be_written(text):
    assert substitute(escape(text), {}, element=False) == text
    assert render(substitute(escape(text), {}, element=True), 7, None) == text


@given(BRACES, BRACES, BRACES)
def test_parameters_and_the_index_never_mix(before, value, after):
    template = escape(before) + "{{params.p}}" + escape(after) + "{{index}}"
    stored = substitute(template, {"p": value}, element=True)
    assert render(stored, 7, None) == before + value + after + "7"
    assert substitute(stored, {}, element=True) == stored


@given(BRACES)
def test_braces_outlive_a_round_trip_of_the_document(text):
    tree = {
        "name": "job",
        "labels": {"l": escape(text)},
        "tasks": {
            "a": {
                "image": "oci:x" + escape(text),
                "command": [escape(text) + "{{index}}"],
                "array": [escape(text)],
                "mounts": [{"source": "./" + escape(text), "target": "/x/" + escape(text)}],
            }
        },
    }
    spec = load_tree(tree)
    assert spec.labels["l"] == text and spec.tasks["a"].mounts[0].source == "./" + text
    assert load_tree(to_document(spec)) == spec
