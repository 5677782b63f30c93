"""``where`` and ``prefer``: every notation, what is told of wrong ones, and the way back."""

from __future__ import annotations

import pytest
from tests.unit.model.loading import job_text, load, minimal, problem, problems, task_of, tree_problems

from towline.model.document import load_tree, to_document
from towline.model.document.conditions import parse_condition
from towline.model.job import Condition, Preference


def where(text: str) -> tuple[Condition, ...]:
    return task_of(f"where: {text}").where


@pytest.mark.parametrize(
    ("text", "op", "values"),
    [
        ("b", "=", ("b",)),
        ("3", "=", ("3",)),
        ("08", "=", ("08",)),
        ("true", "=", ("true",)),
        ('""', "=", ("",)),
        ("= b", "=", ("b",)),
        ('"== b"', "=", ("b",)),
        ('"= exists"', "=", ("exists",)),
        ('"= in [a]"', "=", ("in [a]",)),
        ('"!= b"', "!=", ("b",)),
        ('"!=b"', "!=", ("b",)),
        ("[A100, H100]", "in", ("A100", "H100")),
        ("[exists]", "in", ("exists",)),
        ('"in [a, b c]"', "in", ("a", "b c")),
        ('"not in [a,b]"', "not in", ("a", "b")),
        ("exists", "exists", ()),
        ("absent", "absent", ()),
        ('"< 5"', "<", ("5",)),
        ('"<= 5.5"', "<=", ("5.5",)),
        ('"> -1"', ">", ("-1",)),
        ('">=64"', ">=", ("64",)),
        ('{">=": 64}', ">=", ("64",)),
        ('{"=": exists}', "=", ("exists",)),
        ("{in: [a]}", "in", ("a",)),
        ("{not in: [a, 'b, c']}", "not in", ("a", "b, c")),
        ("{exists: true}", "exists", ()),
        ("in-house", "=", ("in-house",)),
        ('">= 39.5"', ">=", ("39.5",)),
        ("nothing", "=", ("nothing",)),
        ("a = b", "=", ("a = b",)),
    ],
)
def test_notations(text, op, values):
    (found,) = where(f"{{label: {text}}}")
    assert found == Condition(key="label", op=op, values=values)


def test_plain_texts_in_a_block_need_no_quotes():
    spec = load(job_text("where:\n  ram_gb: < 64\n  disk: not in [hdd, tape]\n  gpu.model: [A100, H100]"))
    assert spec.tasks["a"].where == (
        Condition(key="ram_gb", op="<", values=("64",)),
        Condition(key="disk", op="not in", values=("hdd", "tape")),
        Condition(key="gpu.model", op="in", values=("A100", "H100")),
    )


def test_several_conditions_on_one_label():
    both = (Condition(key="ram", op=">=", values=("64",)), Condition(key="ram", op="<", values=("512",)))
    assert where('{ram: {">=": 64, "<": 512}}') == both
    assert where('[{ram: ">= 64"}, {ram: "< 512"}]') == both


def test_preferences():
    assert task_of("prefer: {zone: b, ssd: exists}").prefer == (
        Preference(key="zone", values=("b",)),
        Preference(key="ssd", op="exists"),
    )
    assert task_of("prefer: [{zone: b, weight: 10}, {zone: [c, d]}]").prefer == (
        Preference(key="zone", values=("b",), weight=10),
        Preference(key="zone", op="in", values=("c", "d")),
    )
    assert task_of("prefer: {zone: b, weight: 3}").prefer[0].weight == 3
    assert task_of("prefer: {zone: b}").prefer[0].condition == Condition(key="zone", values=("b",))


def test_parameters_stand_in_values_before_they_are_read():
    text = job_text(
        "where: {zone: '{{params.zone}}', m: ['{{params.zone}}', x], n: '{{params.what}}', o: '{{{{'}",
        "params: {zone: b, what: '!= y'}\n",
    )
    assert load(text).tasks["a"].where == (
        Condition(key="zone", values=("b",)),
        Condition(key="m", op="in", values=("b", "x")),
        Condition(key="n", op="!=", values=("y",)),
        Condition(key="o", values=("{{",)),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b", "where: is a text, not a mapping (write a mapping such as {zone: b, gpu.model: [A100, H100]})"),
        ("[b]", "where[0]: is a text, not a mapping (write a mapping such as {zone: b"),
        ("{zone: }", 'where.zone: is empty (write exists, absent, a value, or "" for an empty one)'),
        ("{zone: []}", "where.zone: has 0 values (write 1 to 1,000)"),
        ("{zone: [[a]]}", "where.zone[0]: is a list, but has to be a text"),
        ("{zone: {}}", 'where.zone: is empty (write a value, a list of values, "!= VALUE"'),
        ("{zone: {not_in: [a]}}", "where.zone.not_in: 'not_in' is no comparison (did you mean 'not in'?)"),
        ("{zone: {in: a}}", "where.zone.in: is a text, not a list (write a list such as [A, B])"),
        ("{zone: {exists: false}}", "where.zone.exists: is false (write exists: true, or absent: true)"),
        ('{zone: "!exists"}', "where.zone: is '!exists' (write absent)"),
        ('{zone: ">="}', "where.zone: is '>=' (write what comes after >=)"),
        ('{zone: "!= [a, b]"}', "where.zone: is '!= [a, b]' (write not in [A, B])"),
        ('{zone: "not in a, b"}', "where.zone: is 'not in a, b' (write not in [A, B], or = before it"),
        ('{zone: "in []"}', "where.zone: is 'in []' (write in [A, B])"),
        (
            '{ram: ">= 64Gi"}',
            "where.ram: >= is for numbers, and '64Gi' is none (labels are compared as plain",
        ),
        ('{ram: {"<": nan}}', "where.ram: < is for numbers"),
        ('{gpu.model: "> 3"}', "where.'gpu.model': > is for numbers, and models are names (write a list of"),
        ("{gpu.memry: 3}", "where.'gpu.memry': of GPUs there is no 'gpu.memry' (did you mean 'gpu.memory'?)"),
        ("{gpu.modle: T4}", "where.'gpu.modle': of GPUs there is no 'gpu.modle' (did you mean 'gpu.model'?)"),
        ("{/zone: b}", "where.'/zone': the name is '/zone' (a label's name is"),
        ('{zone: "a\\nb"}', r"where.zone: has 'a\nb' (a value is up to 256 characters on one line)"),
    ],
)
def test_what_is_told_of_wrong_ones(text, expected):
    found = problem(job_text(f"where: {text}"))
    told = str(found).removeprefix("line 6: tasks.a.")
    assert told.startswith(expected), told


@pytest.mark.parametrize(
    ("text", "where", "remedy"),
    [
        ("{zone: b, weight: 0}", "prefer.weight", "write a whole number from 1 to 1,000"),
        ("[{zone: b}, {ssd: exists, weight: much}]", "prefer[1].weight", "write a whole number from 1 to"),
        ("[{weight: 3}]", "prefer[0]", "write {zone: b, weight: 10}"),
    ],
)
def test_weights_that_are_none(text, where, remedy):
    found = problem(job_text(f"prefer: {text}"))
    assert found.where == f"tasks.a.{where}" and found.remedy.startswith(remedy)


def test_all_of_them_are_told_at_once():
    text = job_text('where:\n  zone: {nope: 1}\n  ram: ">= x"\nprefer: 3\nspread: ""')
    assert [(found.line, found.where) for found in problems(text)] == [
        (7, "tasks.a.where.zone.nope"),
        (8, "tasks.a.where.ram"),
        (9, "tasks.a.prefer"),
        (10, "tasks.a.spread"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("disk: != hdd", """line 7: the tag '!=' is not known (quote it: "!= hdd")"""),
        ("ram: >= 64", "line 7: is not YAML: while scanning a block scalar"),
    ],
)
def test_what_yaml_makes_of_signs_without_quotes(text, told):
    (found,) = problems(job_text(f"where:\n  {text}"))
    assert str(found).startswith(told)
    assert "quote" in found.remedy


def test_there_is_an_end_to_conditions_and_values():
    (found,) = tree_problems(minimal(where={f"a{at}": "b" for at in range(65)}))
    assert str(found) == "tasks.a.where: has 65 conditions (at most 64)"
    (found,) = tree_problems(minimal(where={"a": ["b"] * 1_001}))
    assert str(found) == "tasks.a.where.a: has 1,001 values (write 1 to 1,000)"


@pytest.mark.parametrize(
    "tree",
    [
        {"zone": "b", "gpu.model": ["A100", "H100"], "disk": "!= hdd", "ram": ">= 64", "s": "exists"},
        {"zone": {"not in": ["a", "b"]}, "x": "= exists", "y": "= != z", "z": {"=": " < 3 "}, "e": ""},
        [{"ram": ">= 64"}, {"ram": "< 512"}],
    ],
)
def test_the_way_back_is_the_shortest_notation(tree):
    spec = load_tree(minimal(where=tree))
    assert to_document(spec)["tasks"]["a"]["where"] == tree


def test_a_plain_text_is_never_read_as_anything_else_after_an_equals_sign():
    for text in ("exists", "in [a]", "< 3", "!= x", "not in [a, b]", "= y"):
        assert parse_condition(f"= {text}") == ("=", (text,))
