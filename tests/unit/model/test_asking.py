"""What a task asks for beyond CPU and memory: GPUs, isolation, secrets, its place among other work."""

from __future__ import annotations

import pytest
from tests.unit.model.loading import job_text, load, minimal, problem, problems, task_of, tree_problems

from towline.model.document import load_tree, to_document
from towline.model.job import Gpu, Limit
from towline.model.names import CAPABILITIES
from towline.model.template import ELEMENT_FIELDS

CONTAINER = "runtime: oci\nimage: busybox\n"


def gpu(text: str, others: str = "") -> Gpu | None:
    return task_of(f"resources: {{gpu: {text}}}", others).resources.gpu


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", Gpu()),
        ("2", Gpu(count=2)),
        ("2.0", Gpu(count=2)),
        ("'4'", Gpu(count=4)),
        ("0.5", Gpu(milli=500)),
        (".001", Gpu(milli=1)),
        ("0", None),
        ("~", None),
        ("{}", Gpu()),
        ("{count: 0.25}", Gpu(milli=250)),
        (
            "{count: 1, model: [A100, H100], memory: 20Gi}",
            Gpu(model=("A100", "H100"), memory_bytes=20 * 2**30),
        ),
        ("{model: T4}", Gpu(model=("T4",))),
        ("{slice: 1G.5GB, count: 2}", Gpu(count=2, slice="1g.5gb")),
        ("{slice: 1g.10gb+me, model: A100}", Gpu(slice="1g.10gb+me", model=("A100",))),
        ("'{{params.n}}'", Gpu(milli=500)),
        ("{count: '{{params.n}}', model: '{{params.m}}'}", Gpu(milli=500, model=("T4",))),
    ],
)
def test_notations_of_gpus(text, expected):
    assert gpu(text, "params: {n: 0.5, m: T4}\n") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.5", "gpu: is 1.5 (a share is one of a single device: write 1 or a share such as 0.5)"),
        ("-1", "gpu: is -1 (gpu is above 0, such as 1 or 0.5)"),
        ("0.0005", "gpu: is 0.0005 (gpu has at most three decimals"),
        ("2000", "gpu: is 2000 (gpu is at most 1024)"),
        ("true", "gpu: is true (gpu is a number such as 1 or 0.5)"),
        ("A100", "gpu: is 'A100' (gpu is a number such as 1 or 0.5)"),
        ("[1]", "gpu: is a list (write a number of devices such as 1, a share such as 0.5, or {count: 1"),
        ("{count: 0}", "gpu.count: is 0 (gpu is above 0"),
        ("{count: 2.5}", "gpu.count: is 2.5 (a share is one of a single device"),
        ("{modle: A100}", "gpu.modle: gpu has no field 'modle' (did you mean 'model'?)"),
        ("{vram: 3Gi}", "gpu.vram: gpu has no field 'vram' (did you mean 'memory'?)"),
        ("{model: []}", "gpu.model: has 0 models (write 1 to 64, or leave it out)"),
        ("{model: [A100, '']}", "gpu.model[1]: is '' (write the name of a model such as A100)"),
        ("{memory: lots}", "gpu.memory: is 'lots' (a size is 64Mi"),
        ("{memory: 20}", "gpu.memory: is 20 (write an amount such as 20Gi)"),
        ("{slice: half}", "gpu.slice: is 'half' (write a MIG profile such as 1g.5gb)"),
        ("{slice: 1g.5gb, count: 0.5}", "gpu.count: is a share, and slices are not shared (write a whole"),
        ("{slice: 1g.5gb, memory: 5Gi}", "gpu.memory: stands beside slice (leave it out: 1g.5gb says how"),
        ("'{{index}}'", "gpu: {{index}} cannot stand here, since all elements of a task are placed alike"),
    ],
)
def test_gpus_that_cannot_be(text, expected):
    told = str(problem(job_text(f"resources: {{gpu: {text}}}")))
    assert told.removeprefix("line 6: tasks.a.resources.").startswith(expected), told


@pytest.mark.parametrize(
    "tree",
    [
        1,
        2,
        0.5,
        {"model": "A100"},
        {"count": 2, "model": ["A100", "H100"], "memory": "20Gi"},
        {"slice": "1g.5gb"},
    ],
)
def test_gpus_are_written_back_shortly(tree):
    spec = load_tree(minimal(resources={"gpu": tree}))
    assert to_document(spec)["tasks"]["a"]["resources"] == {"gpu": tree}


def test_disk():
    assert task_of("resources: {disk: 2Gi}").resources.disk_bytes == 2**31
    assert str(problem(job_text("resources: {disk: 1Ki}"))).startswith(
        "line 6: tasks.a.resources.disk: is '1Ki'"
    )


# --- isolation --------------------------------------------------------------------------------------


def test_capabilities_are_normalised():
    task = task_of(
        CONTAINER + "capabilities: [NET_RAW, cap_sys_ptrace, Cap_Net_Raw, '{{params.c}}']",
        "params: {c: bpf}\n",
    )
    assert task.capabilities == ("NET_RAW", "SYS_PTRACE", "BPF")
    assert len(set(CAPABILITIES)) == 41 and list(CAPABILITIES) == sorted(CAPABILITIES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NET_RAW", "capabilities: is a text, not a list (write a list such as [NET_RAW])"),
        ("[NET_ROW]", "capabilities[0]: there is no capability 'NET_ROW' (did you mean 'NET_RAW'?)"),
        (
            "[CAP_SYS_ADMN]",
            "capabilities[0]: there is no capability 'CAP_SYS_ADMN' (did you mean 'SYS_ADMIN'?)",
        ),
        ("[all]", "capabilities[0]: is 'ALL' (name each that is needed, or write privileged: true)"),
        ("[[a]]", "capabilities[0]: is a list, but has to be a text"),
    ],
)
def test_capabilities_that_are_none(text, expected):
    told = str(problem(job_text(CONTAINER + f"capabilities: {text}")))
    assert told.removeprefix("line 7: tasks.a.").startswith(expected), told


@pytest.mark.parametrize("user", ["0", "1000", "1000:1000", "nobody", "www-data:33", "4294967294", "_apt"])
def test_users(user):
    assert task_of(CONTAINER + f"user: {user}").user == user


@pytest.mark.parametrize(
    "user", ["", "-1", "a b", "a:b:c", ":1", "1:", "4294967295", "99999999999", "x" * 33, "é"]
)
def test_users_that_are_none(user):
    (found,) = tree_problems({"name": "job", "tasks": {"a": {"image": "busybox", "user": user}}})
    assert found.where == "tasks.a.user" and found.remedy


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            "privileged: true\nrequire: [userns, disk, seccomp]",
            "require: has userns and seccomp, which privileged: true takes away (leave one of them out",
        ),
        (
            "network: host\nrequire: [network]",
            "require: has network, and network: host shares that of the node",
        ),
        (
            "require: [usernss]",
            "require[0]: is 'usernss' (write userns, seccomp, memory, cpu, pids, disk, network",
        ),
        ("require: userns", "require: is a text, not a list (write a list such as [userns, seccomp])"),
        ("privileged: maybe", "privileged: is 'maybe', but has to be true or false"),
    ],
)
def test_demands_that_contradict_each_other(fields, expected):
    told = str(problem(job_text(CONTAINER + fields))).partition("tasks.a.")[2]
    assert told.startswith(expected), told


def test_what_may_stand_together():
    task = task_of(CONTAINER + "privileged: true\nrequire: [memory, pids]\nuser: 0")
    assert task.privileged and task.require == ("memory", "pids")
    assert task_of("require: [memory]\nsecrets: {T: t}").runtime == "process"


@pytest.mark.parametrize("field", ["user: root", "capabilities: [KILL]", "privileged: true"])
def test_a_plain_process_has_no_isolation_to_ask_for(field):
    found = problem(job_text(field))
    assert found.message == "is not for runtime: process, which has no container"


def test_a_plain_process_cannot_require_what_no_process_has():
    found = problem(job_text("require: [userns, memory, seccomp]"))
    assert str(found) == (
        "line 6: tasks.a.require: runtime: process gives no userns or seccomp (use runtime: oci)"
    )


def test_the_docker_runtime_needs_an_image_and_takes_what_containers_have():
    assert problem(job_text("runtime: docker")).where == "tasks.a.image"
    task = task_of(
        "runtime: docker\nimage: busybox\nuser: '1000'\ncapabilities: [KILL]\nargs: [x]\ncommand: ~"
    )
    assert (task.runtime, task.user, task.capabilities) == ("docker", "1000", ("KILL",))


def test_secrets():
    task = task_of("secrets: {TOKEN: my-token, tls.key: 'db.{{params.env}}'}", "params: {env: prod}\n")
    assert task.secrets == {"TOKEN": "my-token", "tls.key": "db.prod"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\nb", "x" * 64, "-a"])
def test_names_of_secrets_that_are_none(name):
    (found,) = tree_problems(minimal(secrets={name: "x"}))
    assert found.where.startswith("tasks.a.secrets.") and "a secret's name is 1 to 63" in found.remedy
    (found,) = tree_problems(minimal(secrets={"T": name}))
    assert found.where == "tasks.a.secrets.T" and "a secret's name is 1 to 63" in found.remedy


@pytest.mark.parametrize(
    "target", ["/run/secrets", "/run", "/run/secrets/", "/run/secrets/TOKEN", "//run/./secrets"]
)
def test_nothing_may_hide_secrets(target):
    tree = {"image": "busybox", "mounts": [{"source": ".", "target": target}], "secrets": {"TOKEN": "x"}}
    (found,) = tree_problems({"name": "job", "tasks": {"a": tree}})
    assert str(found) == (
        f"tasks.a.mounts[0]: {target!r} is where the task's secrets are, /run/secrets (use another place)"
    )
    assert load_tree({"name": "job", "tasks": {"a": {**tree, "secrets": {}}}})


@pytest.mark.parametrize("target", ["/run/secrets2", "/run/lock", "/secrets", "/run/secret"])
def test_places_beside_secrets(target):
    tree = {"image": "busybox", "mounts": [{"source": ".", "target": target}], "secrets": {"TOKEN": "x"}}
    assert load_tree({"name": "job", "tasks": {"a": tree}})


# --- its place among other work ---------------------------------------------------------------------


def test_limit_queue_expect_spread_tolerate():
    spec = load(
        job_text(
            "limit: {key: 'db-{{params.shard}}', max: 3}\nexpect: 20m\nspread: zone\n"
            "tolerate: [gpu, team=ml, a=]",
            "params: {shard: 7}\nqueue: 'q-{{params.shard}}'\n",
        )
    )
    task = spec.tasks["a"]
    assert task.limit == Limit(key="db-7", max=3)
    assert (task.expect_ms, task.spread, task.tolerate) == (1_200_000, "zone", ("gpu", "team=ml", "a="))
    assert spec.queue == "q-7"
    assert load_tree(to_document(spec)) == spec
    assert load(job_text("")).queue == "default"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("limit: 3", "limit: is a number, not a mapping (write a mapping such as {key: database, max: 3})"),
        ("limit: {max: 3}", "limit.key: is missing (write key: database)"),
        ("limit: {key: a}", "limit.max: is missing (write max: 3)"),
        ("limit: {key: a, max: 0}", "limit.max: is 0 (write a whole number from 1 to 10,000,000)"),
        ("limit: {key: ' ', max: 1}", "limit.key: is ' ' (write up to 256 characters on one line"),
        (
            "limit: {key: 'db-{{index}}', max: 1}",
            "limit.key: {{index}} cannot stand here, since all elements",
        ),
        ("limit: {keys: a, key: b, max: 1}", "limit.keys: limit has no field 'keys' (did you mean 'key'?)"),
        ("expect: soon", "expect: is 'soon' (a time is 30s"),
        (
            "expect: 2m\ntimeout: 90s",
            "expect: is 2m, and after 1m30s it is stopped (make timeout at least as",
        ),
        ("spread: [zone]", "spread: is a list, but has to be a text"),
        ("spread: a b", "spread: the name is 'a b' (a label's name is"),
        (
            "spread: gpu.model",
            "spread: is 'gpu.model', of which a node may have several (write a label, node",
        ),
        ("tolerate: gpu", "tolerate: is a text, not a list (write a list such as [gpu])"),
        ("tolerate: ['=x']", "tolerate[0]: is '=x' (write KEY or KEY=VALUE, such as gpu)"),
        ('tolerate: [gpu, "a=\\n"]', "tolerate[1]: is 'a=\\n' (a value is up to 256 characters"),
        ("queue: x", "queue: a task has no such field, the job has (move queue to the top of the file)"),
        ("gpu: 1", "gpu: task has no field 'gpu'"),
        ("retries: {limit: }", "retries.limit: is empty (leave the field out, or write limit: 2)"),
    ],
)
def test_what_is_told_of_wrong_ones(fields, expected):
    told = str(problems(job_text(fields))[0]).partition("tasks.a.")[2]
    assert told.startswith(expected), told


@pytest.mark.parametrize("queue", ["", "a b", "/a", "x" * 64, "{{params.x}}"])
def test_queues_that_are_none(queue):
    (found,) = tree_problems(minimal() | {"queue": queue})
    assert found.where == "queue"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("gpu", ("gpu",)),
        ("any", ("any",)),
        ("[any]", ("any",)),
        ("[east, west]", ("east", "west")),
        ("[7, 1.50]", ("7", "1.50")),
        ("'{{params.where}}-1'", ("east-1",)),
        ("[west, '{{params.where}}']", ("west", "east")),
        ("'{{params.all}}'", ("any",)),
    ],
)
def test_pools(written, expected):
    spec = load(job_text("", f"params: {{where: east, all: any}}\npool: {written}\n"))
    assert spec.pool == expected
    document = to_document(spec)
    assert document["pool"] == (expected[0] if len(expected) == 1 else list(expected))
    assert load_tree(document) == spec
    assert load(job_text("")).pool == () and "pool" not in to_document(load(job_text("")))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", "pool: is empty (leave the field out, or write pool: any)"),
        ("[]", "pool: is an empty list (write the name of a pool, any, or a list such as [east, west])"),
        ("{a: b}", "pool: is a mapping, not the name of a pool (write the name"),
        ("[[a]]", "pool[0]: is a list, not the name of a pool (write the name"),
        ("[a, ]\n# x", None),
        ("[a, null]", "pool[1]: is nothing, not the name of a pool (write the name"),
        ("a b", "pool: the name is 'a b' (a pool's name is 1 to 63 letters, digits, -, _ and ., begins with"),
        ("'*'", "pool: the name is '*' (a pool's name is"),
        ("cluster", "pool: the name is 'cluster' (a pool's name is"),
        ("[east, cluster]", "pool[1]: the name is 'cluster' (a pool's name is"),
        ("[east, any]", "pool[1]: is 'any' beside other pools (write pool: any, or the pools' names alone)"),
        ("[any, any]", "pool[0]: is 'any' beside other pools"),
        (str([f"p{n}" for n in range(201)]), "pool: names 201 pools (name up to 200, or write pool: any)"),
        ("[east, west, east]", "pool[2]: names 'east' again (name each pool once)"),
        ("'{{params.nowhere}}'", "pool: there is no parameter 'nowhere'"),
        ("'{{index}}'", "pool: {{index}} cannot stand here"),
    ],
)
def test_what_is_told_of_wrong_pools(written, expected):
    text = job_text("", f"pool: {written}\n")
    if expected is None:
        assert load(text).pool == ("a",)
        return
    told = str(problems(text)[0])
    assert expected in told, told


def test_a_pool_belongs_to_the_job():
    told = str(problems(job_text("pool: gpu"))[0])
    assert "pool: a task has no such field, the job has (move pool to the top of the file)" in told


ANYWHERE: dict[str, object] = {
    "image": "x:{}",
    "user": "u{}",
    "capabilities": ["{}"],
    "require": ["{}"],
    "secrets": {"T": "t{}"},
    "where": {"zone": "{}"},
    "prefer": {"zone": ["{}"]},
    "spread": "zone{}",
    "tolerate": ["gpu{}"],
    "limit": {"key": "db{}", "max": 1},
    "expect": "{}",
    "resources": {"gpu": "{}", "disk": "{}"},
}


def filled(tree: object, text: str) -> object:
    if isinstance(tree, str):
        return tree.replace("{}", text)
    if isinstance(tree, list):
        return [filled(item, text) for item in tree]
    return {key: filled(item, text) for key, item in tree.items()} if isinstance(tree, dict) else tree


@pytest.mark.parametrize("field", ANYWHERE)
@pytest.mark.parametrize("name", ["index", "value"])
def test_elements_are_placed_alike(field, name):
    assert field not in ELEMENT_FIELDS
    task = {"image": "busybox", "array": ["a", "b"], field: filled(ANYWHERE[field], "{{" + name + "}}")}
    found = tree_problems({"name": "job", "tasks": {"a": task}})
    assert found
    for each in found:
        assert "cannot stand here, since all elements of a task are placed alike" in each.message
        assert each.where.startswith(f"tasks.a.{field}")
