"""Job files into specs, and everything that is wrong with one told at once."""

from __future__ import annotations

import pytest
from tests.unit.model.loading import job_text, load, minimal, problem, problems, task_of, tree_problems

from towline.model.document import load_tree
from towline.model.example import EXAMPLE
from towline.model.job import Array, Backoff, JobSpec, Logs, Mount, Need, Resources, Retries, TaskSpec

FLIGHTS = """\
name: flights
params: {year: 2013}
priority: 60
labels: {team: data, year: "{{params.year}}"}
tasks:
  split:
    image: oci:./images/busybox:1.36
    command: ["sh", "-c", "split -l 30000 /data/flights.csv $TOW_OUT/part-"]
    env: {LC_ALL: C}
    resources: {cpu: 0.5, memory: 64Mi, pids: 64}
    mounts: [{source: ./data, target: /data, readonly: true}]
    timeout: 2m
    retries: {limit: 2, backoff: {first: 1s, factor: 2, max: 30s, jitter: 0.1}, on: [exited]}
  count:
    image: oci:./images/busybox:1.36
    needs: [split]
    array: 0-11
    inputs: {split: /in/split}
    logs: {max_bytes: 1Mi}
    on_disconnect: stop
    grace: 500ms
    network: host
    workdir: /work
  report:
    image: oci:./images/busybox:1.36
    args: [--year, 2013]
    array: 12
    needs: [{task: count, each: true}, split]
"""


def test_every_field_of_a_job():
    spec = load(FLIGHTS)
    image = "oci:./images/busybox:1.36"
    split = TaskSpec(
        image=image,
        command=("sh", "-c", "split -l 30000 /data/flights.csv $TOW_OUT/part-"),
        env={"LC_ALL": "C"},
        resources=Resources(cpu_milli=500, memory_bytes=64 * 1024**2, pids=64),
        mounts=(Mount(source="./data", target="/data", readonly=True),),
        timeout_ms=120_000,
        retries=Retries(
            limit=2, backoff=Backoff(first_ms=1000, factor=2, max_ms=30_000, jitter=0.1), on=("exited",)
        ),
    )
    count = TaskSpec(
        image=image,
        needs=(Need(task="split"),),
        array=Array(first=0, last=11),
        inputs={"split": "/in/split"},
        logs=Logs(max_bytes=1024**2),
        on_disconnect="stop",
        grace_ms=500,
        network="host",
        workdir="/work",
    )
    report = TaskSpec(
        image=image,
        args=("--year", "2013"),
        array=Array(first=0, last=11),
        needs=(Need(task="count", each=True), Need(task="split")),
    )
    assert spec == JobSpec(
        name="flights",
        params={"year": 2013},
        priority=60,
        labels={"team": "data", "year": "2013"},
        tasks={"split": split, "count": count, "report": report},
    )
    assert list(spec.tasks) == ["split", "count", "report"]


def test_the_example_of_tow_init_loads():
    assert list(load(EXAMPLE).tasks) == ["split", "count", "report"]
    assert "hi $i" in (load(EXAMPLE, greeting="hi").tasks["split"].command or ())[2]


def test_what_wants_text_is_taken_as_written():
    task = task_of(
        "command: [sleep, 1.0, 08, 0x1F, yes, true, 1e3, 1:30, 2013-01-01, ~x]\nenv: {A: yes, B: 08, C: .5}\n"
    )
    assert task.command == ("sleep", "1.0", "08", "0x1F", "yes", "true", "1e3", "1:30", "2013-01-01", "~x")
    assert task.env == {"A": "yes", "B": "08", "C": ".5"}
    assert task_of("array: [1.0, 02, no]").array == Array(first=0, last=2, values=("1.0", "02", "no"))
    assert load(job_text("", "labels: {v: 1.10}\n")).labels == {"v": "1.10"}
    assert load("name: 2013\ntasks: {08: {image: oci:x}, b: {image: oci:x, needs: 08}}").tasks["08"].image


def test_a_tree_from_the_api_is_left_as_it_is():
    tree = minimal(command=["sleep", 1.0, True, 7])
    assert load_tree(tree).tasks["a"].command == ("sleep", "1.0", "true", "7")
    assert tree["tasks"]["a"]["command"] == ["sleep", 1.0, True, 7]


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("needs: b", ("b",)),
        ("needs: [b]", ("b",)),
        ("needs: {task: b}", ("b",)),
        ("needs: [{task: b, each: false}]", ("b",)),
        ("needs: []", ()),
    ],
)
def test_forms_of_needs(text, needs):
    spec = load(job_text(text) + "  b: {image: oci:x}\n")
    assert tuple(need.task for need in spec.tasks["a"].needs) == needs


@pytest.mark.parametrize(
    ("text", "array"),
    [
        ("0-11", Array(first=0, last=11)),
        ("3 - 3", Array(first=3, last=3)),
        ("12", Array(first=0, last=11)),
        ("'12'", Array(first=0, last=11)),
        ("[12]", Array(first=0, last=0, values=("12",))),
        ("~", None),
    ],
)
def test_forms_of_array(text, array):
    assert task_of(f"array: {text}").array == array


def test_null_stands_for_not_said_only_where_that_is_a_value():
    assert task_of("timeout: ~\nworkdir:\narray: null\nargs: ~").timeout_ms is None
    found = problem(job_text("env:"))
    assert str(found) == "line 6: tasks.a.env: is empty (leave the field out, or write env: {LC_ALL: C})"


MANY = """\
name: a/b
lables: {}
image: x
tasks:
  a:
    image: BusyBox:1.36
    comand: [x]
    command: echo hi
    resources: {memory: 64 XB, cpu: -1, mem: 3}
    needs: [b, c, a]
    timeout: 5 parsecs
  b:
    image: oci:x
    priority: 3
    array: 5-1
    env: [A=b]
  "x\\n": {image: oci:x, mounts: "a:b"}
  d:
"""


def test_all_problems_at_once_in_the_order_of_the_file():
    told = [(found.line, found.where, found.remedy) for found in problems(MANY)]
    assert [(line, where) for line, where, _ in told] == [
        (1, "name"),
        (2, "lables"),
        (3, "image"),
        (6, "tasks.a.image"),
        (7, "tasks.a.comand"),
        (8, "tasks.a.command"),
        (9, "tasks.a.resources.memory"),
        (9, "tasks.a.resources.cpu"),
        (9, "tasks.a.resources.mem"),
        (10, "tasks.a.needs[1]"),
        (10, "tasks.a.needs[2]"),
        (11, "tasks.a.timeout"),
        (14, "tasks.b.priority"),
        (15, "tasks.b.array"),
        (16, "tasks.b.env"),
        (17, r"tasks.'x\n'.mounts"),
        (17, r"tasks.'x\n'"),
        (18, "tasks.d"),
    ]
    remedies = {where: remedy for _, where, remedy in told}
    assert remedies["lables"] == "did you mean 'labels'?"
    assert remedies["image"] == "move it to tasks.NAME.image"
    assert remedies["tasks.a.comand"] == "did you mean 'command'?"
    assert remedies["tasks.a.resources.mem"] == "did you mean 'memory'?"
    assert remedies["tasks.b.priority"] == "move priority to the top of the file"
    assert remedies["tasks.b.array"] == "write 1-5"
    assert remedies[r"tasks.'x\n'.mounts"] == "write [{source: a, target: b}]"
    assert remedies["tasks.a.command"].startswith('write ["sh", "-c", "echo hi"]')


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("resources: {memory: 0}", "tasks.a.resources.memory: is 0 (a size is above 0"),
        ("resources: {memory: -1}", "tasks.a.resources.memory: is -1 (a size is above 0"),
        ("resources: {memory: 64 XB}", "tasks.a.resources.memory: is '64 XB' (a size is 64Mi, 1.5G"),
        ("resources: {memory: 64}", "tasks.a.resources.memory: is 64 (write 1Mi to "),
        ("resources: {memory: [1]}", "tasks.a.resources.memory: is a list"),
        ("resources: {cpu: 0}", "tasks.a.resources.cpu: is 0 (cpu is above 0"),
        (
            "resources: {cpu: .nan}",
            "tasks.a.resources.cpu: is .nan, not a finite number (write an amount such as 0.5)",
        ),
        (
            "resources: {memory: 1e400}",
            "tasks.a.resources.memory: is 1e400, not a finite number (write an amount such as 64Mi)",
        ),
        ("command: ['']", "tasks.a.command[0]: is an empty text (its first text is the program to run"),
        ("resources: {cpu: true}", "tasks.a.resources.cpu: is true (cpu is a number such as"),
        ("resources: {pids: 0}", "tasks.a.resources.pids: is 0 (write a whole number from 1 to"),
        ("resources: {pids: 1.5}", "tasks.a.resources.pids: is 1.5, but has to be a whole number"),
        ("resources: {pids: '3'}", "tasks.a.resources.pids: is '3', but has to be a whole number"),
        ("resources: 3", "tasks.a.resources: is a number, not a mapping (write a mapping such as {cpu"),
        ("timeout: 0", "tasks.a.timeout: is 0 (a time is at least 1ms"),
        ("timeout: soon", "tasks.a.timeout: is 'soon' (a time is 30s, 2m"),
        ("grace: true", "tasks.a.grace: is true"),
        ("retries: {limit: -1}", "tasks.a.retries.limit: is -1"),
        ("retries: {limit: 10000000000000000000000}", "tasks.a.retries.limit: is 10000000000000000000000"),
        (
            "retries: {backoff: {factor: .inf}}",
            "tasks.a.retries.backoff.factor: is .inf, not a finite number (write a number from 1 to",
        ),
        ("retries: {backoff: {factor: 0.5}}", "tasks.a.retries.backoff.factor: is 0.5"),
        (
            "retries: {backoff: {jitter: 2}}",
            "tasks.a.retries.backoff.jitter: is 2 (write a number from 0",
        ),
        ("retries: {backoff: {first: 1h}}", "tasks.a.retries.backoff: first is longer than max"),
        (
            "retries: {on: [exit]}",
            "tasks.a.retries.on[0]: 'exit' is no reason to retry for (did",
        ),
        ("retries: {on: [cancelled]}", "tasks.a.retries.on[0]: 'cancelled' is no reason to retry for"),
        (
            "retries: {on: exited}",
            "tasks.a.retries.on: is a text, not a list (write a list such as [ex",
        ),
        ("retries: {lim: 1}", "tasks.a.retries.lim: retries has no field 'lim' (did you mean 'limit'?)"),
        ("runtime: dokcer", "tasks.a.runtime: is 'dokcer' (write oci, docker or process)"),
        ("on_disconnect: kill", "tasks.a.on_disconnect: is 'kill' (write keep, stop or wait)"),
        ("array: 5-1", "tasks.a.array: is '5-1': it ends before it begins (write 1-5)"),
        ("array: 0", "tasks.a.array: is 0: an array has at least one element"),
        ("array: []", "tasks.a.array: is an empty list"),
        ("array: -3", "tasks.a.array: is -3"),
        ("array: 1.5", "tasks.a.array: is 1.5 (write a range such as 0-11"),
        ("array: {first: 1}", "tasks.a.array: is a mapping (write a range"),
        ("array: true", "tasks.a.array: is true"),
        ("array: 0-10000000", "tasks.a.array: has 10,000,001 elements"),
        ("array: 10000001", "tasks.a.array: has 10,000,001 elements"),
        ("array: 2147483647-2147483648", "tasks.a.array: is '2147483647-2147483648' (the highest"),
        ("array: [a, [b]]", "tasks.a.array[1]: is a list, but has to be a text"),
        ("env: {A: }", 'tasks.a.env.A: is empty, but has to be a text (write "" for an empty text)'),
        ("env: {A: {B: 1}}", "tasks.a.env.A: is a mapping, but has to be a text"),
        ("env: {1A: x}", "tasks.a.env.1A: the name is '1A'"),
        ("env: {A=B: x}", "tasks.a.env.'A=B': the name is 'A=B'"),
        ("env: {TOW_INDEX: 1}", "tasks.a.env.TOW_INDEX: names with TOW_ are given by Towline"),
        ("args: [x]", "tasks.a.args: "),
        ("needs: [3, 4]", "tasks.a.needs[0]: there is no task '3'"),
        ("needs: [~]", "tasks.a.needs[0]: is nothing, not the name of a task"),
        ("needs: [[b]]", "tasks.a.needs[0]: is a list, not the name of a task"),
        ("needs: [{each: true}]", "tasks.a.needs[0].task: is missing"),
        (
            "needs: [{task: b, eech: true}]",
            "tasks.a.needs[0]: a need has no field 'eech' (did",
        ),
        ("needs: [{task: b, each: maybe}]", "tasks.a.needs[0].each: is 'maybe' (write true or false)"),
        ("<<: {x: 1}", "tasks.a.'<<': merge keys are not part of YAML 1.2"),
        ("depends_on: [b]", "tasks.a.depends_on: task has no field 'depends_on' (did you mean 'needs'?)"),
        ("cpu_milli: 3", "tasks.a.cpu_milli: task has no field 'cpu_milli'"),
        ("timeout_ms: 3", "tasks.a.timeout_ms: task has no field 'timeout_ms' (did you mean 'timeout'?)"),
    ],
)
def test_a_wrong_field_names_task_field_value_and_remedy(fields, expected):
    found = problems(job_text(fields))[0]
    assert str(found).partition(": ")[2].startswith(expected), str(found)
    assert found.line in (4, 5, 6)


def test_a_number_in_json_that_is_none_has_its_line():
    text = '{"name": "x",\n"tasks": {"a": {"image": "oci:x",\n"resources": {"cpu": NaN}}}}'
    assert str(problem(text)).startswith("line 3: tasks.a.resources.cpu: is 'NaN' (cpu is a number such as")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x", "tasks: is missing"),
        ("name: x\ntasks: {}", "line 2: tasks: is empty: a job has at least one task"),
        ("name: x\ntasks: [a]", "line 2: tasks: is a list, not a mapping (write a mapping such as {hello"),
        ("tasks: {a: {image: oci:x}}", "name: is missing (write name: flights)"),
        ("name: [x]\ntasks: {a: {image: oci:x}}", "line 1: name: is a list, but has to be a text"),
        ("name: ''\ntasks: {a: {image: oci:x}}", "line 1: name: the name is ''"),
        (job_text("", "priority: 101\n"), "line 2: priority: is 101 (write a whole number from 0 to 100)"),
        (job_text("", "priority: -1\n"), "line 2: priority: is -1"),
        (job_text("", "labels: {'a b': x}\n"), "line 2: labels.'a b': the name is 'a b' (a label's name"),
        (job_text("", 'labels: {a: "x\\ny"}\n'), r"line 2: labels.a: is 'x\ny' (a value is up to 256"),
        (job_text("", "params: [1]\n"), "line 2: params: is a list, not a mapping"),
        (job_text("", "params: {a: [1]}\n"), "line 2: params.a: is a list, but has to be a text, a number"),
        (job_text("", "params: {a: }\n"), "line 2: params.a: is nothing, but has to be a text, a number"),
        (job_text("", "params: {a b: 1}\n"), "line 2: params.'a b': the name is 'a b' (a parameter"),
        (
            job_text("", "params: {a: .nan}\n"),
            "line 2: params.a: is .nan, not a finite number (write a finite number)",
        ),
        (
            job_text("", "params: {a: 9223372036854775808}\n"),
            "line 2: params.a: is 9223372036854775808",
        ),
    ],
)
def test_a_wrong_job(text, expected):
    assert str(problem(text)).startswith(expected)


@pytest.mark.parametrize("name", ["a/b", "a\nb", "a\x1b[31mb", "", "-a", "a b", "é", "a" * 64, "..", "a.b"])
def test_names_of_tasks_and_how_bad_ones_are_shown(name):
    (found,) = tree_problems({"name": "job", "tasks": {name: {"image": "oci:x"}}})
    assert "a task's name is 1 to 63 letters" in found.remedy
    assert str(found).isprintable()


@pytest.mark.parametrize("name", ["a/b", "a\nb", "a\x1b[31mb", "-a", "a" * 64, "\u202eabc", "{{params.x}}"])
def test_names_of_jobs_and_how_bad_ones_are_shown(name):
    (found,) = tree_problems(minimal() | {"name": name})
    assert found.where == "name" and "a job's name is 1 to 63 letters" in found.remedy
    assert str(found).isprintable()


def test_fifty_problems_are_told_and_the_others_counted():
    text = "name: x\ntasks:\n" + "".join(f"  t{at}: {{image: oci:x, comand: x}}\n" for at in range(3_000))
    found = problems(text)
    assert len(found) == 51
    assert [each.line for each in found[:50]] == list(range(3, 53))
    assert found[50].message == "and 2950 more problems"


def test_ten_thousand_tasks_are_taken_and_one_more_is_not():
    tree = {"name": "x", "tasks": {f"t{at}": {"image": "oci:x"} for at in range(10_000)}}
    assert len(load_tree(tree).tasks) == 10_000
    tree["tasks"]["more"] = {"image": "oci:x"}  # type: ignore[index]
    (found,) = tree_problems(tree)
    assert str(found) == "tasks: has 10,001 tasks (a job has at most 10,000: split it)"


def test_the_elements_of_all_tasks_together_are_bounded():
    tree = {"name": "x", "tasks": {f"t{at}": {"image": "oci:x", "array": 6_000_000} for at in range(2)}}
    (found,) = tree_problems(tree)
    assert str(found).startswith("tasks: have 12,000,000 elements together")


def test_more_than_the_kernel_takes_is_refused():
    (found,) = tree_problems(minimal(command=["x" * 131_072]))
    assert str(found).startswith("tasks.a.command[0]: has 131,072 bytes (at most 131,071")
    (found,) = tree_problems(minimal(env={"A": "é" * 70_000}))
    assert found.where == "tasks.a.env.A"
    (found,) = tree_problems(minimal(array=["a", "x" * 131_072]))
    assert found.where == "tasks.a.array[1]"
    (found,) = tree_problems(minimal(env={f"A{at}": "x" * 100_000 for at in range(11)}))
    assert found.where == "tasks.a" and "bytes together" in found.message


def test_immense_numbers_of_a_tree_are_told_shortly():
    for immense in (10**5000, -(10**5000)):
        tree = minimal(resources={"cpu": immense, "pids": immense}, command=[immense], array=immense)
        assert [found.where for found in tree_problems(tree | {"priority": immense})] == [
            "tasks.a.command[0]",
            "tasks.a.resources.cpu",
            "tasks.a.resources.pids",
            "tasks.a.array",
            "priority",
        ]
