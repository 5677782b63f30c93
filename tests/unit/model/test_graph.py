"""Needs, inputs and cycles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import job_spec, layers, task
from tests.unit.model.loading import tree_problems

from towline.errors import Problem
from towline.model.document import load_tree, to_document
from towline.model.document.checks.graph import find_cycle
from towline.model.job import Need


def job(**tasks: dict[str, object]) -> dict[str, object]:
    return {"name": "job", "tasks": {name: {"image": "oci:x", **fields} for name, fields in tasks.items()}}


def only(tree: object) -> Problem:
    (found,) = tree_problems(tree)
    return found


def test_a_need_of_an_unknown_task():
    found = only(job(split={}, count={"needs": ["splt"]}))
    assert str(found) == "tasks.count.needs[0]: there is no task 'splt' (did you mean 'split'?)"
    assert str(only(job(a={"needs": "x\x1b[2J"}))) == (
        r"tasks.a.needs[0]: there is no task 'x\x1b[2J' (take it out: the job has no other task)"
    )


def test_a_need_of_itself_and_one_that_stands_twice():
    assert str(only(job(a={"needs": ["a"]}))) == "tasks.a.needs[0]: is the task itself (take it out)"
    assert only(job(a={}, b={"needs": ["a", "a"]})).message == "'a' stands here twice"
    assert only(job(a={"array": 2}, b={"array": 2, "needs": ["a", {"task": "a", "each": True}]})).message == (
        "'a' stands here twice"
    )


def test_a_broken_task_is_no_unknown_one():
    assert [found.where for found in tree_problems(job(b={"needs": ["a"]}, a={"cpu": 1}))] == ["tasks.a.cpu"]
    tree = job(b={"needs": ["a"]})
    tree["tasks"]["a"] = None  # type: ignore[index]
    assert [found.where for found in tree_problems(tree)] == ["tasks.a"]


def test_a_cycle_is_named_along_its_needs():
    tree = job(a={}, b={"needs": ["a", "d"]}, c={"needs": ["b"]}, d={"needs": ["c"]}, e={"needs": ["d"]})
    found = only(tree)
    assert str(found) == "tasks.b.needs: is a cycle: b → d → c → b (take one of these needs out)"


def test_a_long_cycle_is_cut_in_the_message():
    tasks = {f"t{at}": {"needs": [f"t{(at + 1) % 5_000}"]} for at in range(5_000)}
    assert len(only(job(**tasks)).message) < 1_100


@pytest.mark.parametrize(
    ("needed", "needing", "message"),
    [
        ({"array": 3}, {"array": "0-3"}, "each is for arrays of equal indexes: 'a' has 0-2, this task 0-3"),
        ({"array": "1-3"}, {"array": 3}, "each is for arrays of equal indexes: 'a' has 1-3, this task 0-2"),
        ({}, {"array": 3}, "each is for two arrays, and 'a' has no array"),
        ({"array": 3}, {}, "each is for two arrays, and this task has no array"),
    ],
)
def test_each_is_for_equal_arrays(needed, needing, message):
    found = only(job(a=needed, b={**needing, "needs": [{"task": "a", "each": True}]}))
    assert found.where == "tasks.b.needs[0]" and found.message == message


def test_each_of_an_array_that_is_wrong_itself_is_not_told():
    needs = [{"task": "a", "each": True}]
    assert [found.where for found in tree_problems(job(a={"array": 0}, b={"array": 3, "needs": needs}))] == [
        "tasks.a.array"
    ]


def test_inputs_are_of_needed_tasks():
    found = only(job(split={}, b={"needs": ["split"], "inputs": {"splt": "/in"}}))
    assert str(found) == "tasks.b.inputs.splt: 'splt' is not among the task's needs (did you mean 'split'?)"
    assert only(job(a={}, b={"inputs": {"a": "/in"}})).remedy == "add it to needs"


def test_a_dense_graph_is_taken():
    spec = layers(10, 100)
    assert load_tree(to_document(spec)) == spec
    assert sum(len(each.needs) for each in spec.tasks.values()) == 90_000


@given(st.integers(1, 8), st.data())
def test_a_cycle_is_found_exactly_where_there_is_one(size, data):
    edges = data.draw(st.lists(st.sets(st.integers(0, size - 1)), min_size=size, max_size=size))
    spec = job_spec(
        **{f"t{at}": task(needs=[f"t{to}" for to in sorted(edges[at] - {at})]) for at in range(size)}
    )
    found = find_cycle(spec)
    placed: set[str] = set()
    for _ in range(size):
        placed |= {name for name, each in spec.tasks.items() if {need.task for need in each.needs} <= placed}
    assert (found is None) == (len(placed) == size)
    if found is not None:
        for at, name in enumerate(found):
            assert Need(task=found[(at + 1) % len(found)]) in spec.tasks[name].needs
