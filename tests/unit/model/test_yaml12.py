"""Texts into trees: what YAML 1.2 says, and what no file may do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.errors import InvalidDocument
from towline.model.document import parse_text
from towline.model.document.yaml12 import MAX_DEPTH, resolve_plain


def refusal(text: str | bytes) -> tuple[str, int | None]:
    with pytest.raises(InvalidDocument) as caught:
        parse_text(text)
    (problem,) = caught.value.problems
    return problem.message, problem.line


@pytest.mark.parametrize(
    "text", ["on", "off", "yes", "NO", "y", "1:30", "2013-01-01", "1_000", "0b11", "0o8"]
)
def test_what_yaml_1_1_would_read_otherwise_stays_text(text):
    assert parse_text(f"a: {text}").tree == {"a": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("12", 12),
        ("-0", 0),
        ("+7", 7),
        ("08", 8),
        ("0o17", 15),
        ("0xFf", 255),
        ("1.0", 1.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("nullable", "nullable"),
        ("1.2.3", "1.2.3"),
        ("-", "-"),
        ("0x", "0x"),
    ],
)
def test_the_core_schema(text, value):
    found = resolve_plain(text)
    assert found == value and type(found) is type(value)


def test_quoted_scalars_and_tags_decide():
    assert parse_text('["1", \'2\', !!str 3, !!int "4", ! 5]').tree == ["1", "2", "3", 4, "5"]
    assert refusal("a: !Ref x") == ("the tag '!Ref' is not known", 1)
    assert refusal("a: 1\nb: !!set {x}") == ("the tag 'tag:yaml.org,2002:set' is not known", 2)


def test_keys_are_taken_as_written():
    assert parse_text("{1: a, true: b, 08: c, null: d}").tree == {
        "1": "a",
        "true": "b",
        "08": "c",
        "null": "d",
    }


def test_lines_are_known_for_every_value():
    document = parse_text("a: 1\nb:\n  - x\n  - {c: 1,\n     d: [2,\n 3]}\n")
    assert document.lines.line(["a"]) == 1
    assert document.lines.line(["b"]) == 2
    assert document.lines.line(["b", 0]) == 3
    assert document.lines.line(["b", 1, "d"]) == 5
    assert document.lines.line(["b", 1, "d", 1]) == 6
    assert document.lines.line(["b", 1, "missing", "deeper"]) == 4
    assert document.lines.line(["missing"]) is None


def test_all_keys_that_stand_twice_are_told_with_both_lines():
    with pytest.raises(InvalidDocument) as caught:
        parse_text("a: 1\nb: {c: 1, d: 2, c: [{e: 3}]}\na: {f: 1}\nlist: [{g: 1, g: 2}]", "job.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "line 2: b.c: stands twice, first in line 2 (keep one of them)",
        "line 3: a: stands twice, first in line 1 (keep one of them)",
        "line 4: list[0].g: stands twice, first in line 4 (keep one of them)",
    ]
    assert caught.value.source == "job.yaml"


def test_aliases_are_copies():
    document = parse_text("a: &x {k: [1.50]}\nb: *x\nc: &t 1.0\nd: *t\n")
    a, b = document.tree["a"], document.tree["b"]
    assert a == b and a is not b and a["k"] is not b["k"]
    assert document.lines.written(b["k"], 0) == "1.50"
    assert document.lines.line(["b", "k"]) == 2
    assert document.lines.written(document.tree, "d") == "1.0"


def test_an_alias_to_itself_or_to_nothing_is_refused():
    assert refusal("a: &x [*x]")[0] == "*x refers to nothing before it"
    assert refusal("a: *nothing")[0] == "*nothing refers to nothing before it"


def test_a_bomb_of_aliases_is_refused_early():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, 40)]
    message, _ = refusal("\n".join(lines))
    assert message == "has over 1,000,000 values once its aliases are written out"


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000])
def test_depth_is_bounded(text):
    assert refusal(text)[0] == f"is nested more than {MAX_DEPTH} levels deep"


def test_depth_is_bounded_through_aliases_too():
    lines = ["a0: &a0 [x]"] + [f"a{at}: &a{at} [*a{at - 1}]" for at in range(1, 80)]
    assert refusal("\n".join(lines))[0] == f"is nested more than {MAX_DEPTH} levels deep"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "is empty", None),
        ("# nothing\n", "is empty", None),
        ("---\n", "is empty", None),
        ("a: 1\n---\nb: 2\n", "a second document begins here", 2),
        ("a: b: c", "is not YAML: mapping values are not allowed in this context", 1),
        ("a:\n\t- b", "has a tab where the line is indented", 2),
        ("a: [1, 2\nb: 3", "is not YAML: while parsing a flow sequence", 2),
        ("a: 'x", "is not YAML: while scanning a quoted scalar", 1),
        ("a: 1\n\x1b[31mred", "is not YAML: control characters are not allowed", None),
        ("[a]: 1", "a list or mapping cannot be a key", 1),
        ("? {a: 1}\n: 1", "a list or mapping cannot be a key", 1),
        ("a: 1\nb: \0\n", "contains a NUL character: it is not a text", 2),
        (b"a: 1\nb: \xff\n", "is not a text in UTF-8", 2),
        ("a: \ud800", "is not a text in UTF-8", 1),
        (b"\x7fELF\x02\x01\x01\0\0", "contains a NUL character: it is not a text", 1),
    ],
)
def test_what_is_no_document_is_told_with_its_line(text, message, line):
    found, found_line = refusal(text)
    assert found.startswith(message) and found_line == line


def test_a_byte_order_mark_is_no_content():
    assert parse_text(b"\xef\xbb\xbfname: x").tree == {"name": "x"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, min_size=1), st.booleans(), st.sampled_from([None, 2]))
def test_json_is_read_as_json(tree, ascii_only, indent):
    tree = json.loads(json.dumps(tree).replace("Infinity", "1e300"))
    if "\\u0000" not in json.dumps(tree):
        assert parse_text(json.dumps(tree, ensure_ascii=ascii_only, indent=indent)).tree == tree


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_anything_else_is_refused_and_never_raises_otherwise(text):
    try:
        parse_text(text)
    except InvalidDocument as error:
        assert error.problems
