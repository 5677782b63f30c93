"""``tow simulate`` as it is called: files, options, answers, and the same bytes from the same input."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.simulation.traces.test_exported import NODE, finished, submitted
from typer.testing import CliRunner, Result

from towline.cli.main import commands
from towline.simulation.described.cluster import read_cluster
from towline.simulation.described.policies import read_policies

CLUSTER = """
nodes:
  plain: {count: 2, cpu: 2, memory: 8Gi}
  gpu: {cpu: 4, memory: 8Gi, gpu: {count: 2, model: T4}}
"""
RECORDS = range(30)
POLICIES = """
policies:
  today: {}
  shares:
    order: easy
    queues: {night: {weight: 3, max: {cpu: 3}}}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a log, an export, pods, a cluster and policies."""
    lines = [
        f"{at} {at} -1 {20 + at} 1 -1 -1 {1 + at % 3} 60 -1 1 {at % 4} 1 1 1 1 -1 -1" for at in range(30)
    ]
    (tmp_path / "log.swf").write_text("; MaxProcs: 4\n" + "\n".join(lines))
    events: list[Any] = [
        {"kind": "node", "node": NODE | {"id": f"n{at}", "name": f"n{at}"}} for at in range(3)
    ]
    for at in range(12):
        name = f"j{at}"
        asked = {"cpu": 1 + at % 2, "gpu": 0.5} if at % 3 == 0 else {"cpu": 1 + at % 2}
        events += [submitted(name, at, a={"array": "0-2", "resources": asked})]
        events += [finished(name, 40 + at, 5 + at + index, index) for index in range(3)]
    (tmp_path / "log.jsonl").write_text("\n".join(json.dumps(event) for event in events))
    rows = [f"p{at},{500 + at},64,1,{100 + 100 * (at % 5)},\n" for at in range(12)]
    (tmp_path / "pods.csv").write_text(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n" + "".join(rows)
    )
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    (tmp_path / "policies.yaml").write_text(POLICIES)
    return tmp_path


def tow(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands(), ["simulate", *map(str, arguments)])


def told(*arguments: str | Path) -> dict[str, Any]:
    done = tow(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    assert list(found) == ["policies"]
    return found["policies"]


def test_fewer_nodes_are_compared_in_one_call(files: Path) -> None:
    found = told("events", files / "log.jsonl", "--add-nodes", "-2")
    assert list(found) == ["slowdown", "slowdown, 2 nodes fewer"]
    before, after = found.values()
    assert before["elements"] == before["started"] == after["started"] == 36
    assert after["mean_wait_s"] > before["mean_wait_s"] and after["utilisation"] > before["utilisation"]
    assert 0 < before["gpu_allocation"] < 1 and before["fairness_between_users"] is None


def test_policies_and_clusters_come_from_files_for_every_trace(files: Path) -> None:
    more = ("--cluster", files / "cluster.yaml", "--policies", files / "policies.yaml", "--policy", "fgd")
    for trace in (
        ("events", files / "log.jsonl"),
        ("swf", files / "log.swf", "--queue", "night"),
        ("openb", "--pods", files / "pods.csv"),
    ):
        assert list(told(*trace, *more)) == ["today", "shares", "fgd"]
    found = told("swf", files / "log.swf", "--queue", "night", *more)["shares"]
    assert found["left_out"] == 0 and found["started"] == 30
    assert found["fairness_between_users"]["jain"] <= 1


def test_the_table_shows_policies_side_by_side(files: Path) -> None:
    done = tow("swf", files / "log.swf", "--policy", "slowdown", "--policy", "easy")
    assert done.exit_code == 0
    head, *rows = done.output.splitlines()
    assert head.split() == ["SLOWDOWN", "EASY"]
    assert {"mean wait", "95 % wait less than", "fairness between users"} <= {
        row[:23].strip() for row in rows
    }


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_plots_are_drawn_and_the_same_each_time(files: Path, suffix: str) -> None:
    first, second = files / f"a.{suffix}", files / f"b.{suffix}"
    for path in (first, second):
        done = tow("events", files / "log.jsonl", "--policy", "easy", "--policy", "fgd", "--plot", path)
        assert done.exit_code == 0, done.output
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"<?xml" if suffix == "svg" else b"\x89PNG")
    bars = files / f"c.{suffix}"
    done = tow("openb", "--cluster", files / "cluster.yaml", "--pods", files / "pods.csv", "--plot", bars)
    assert done.exit_code == 0 and bars.stat().st_size > 1000


def test_a_plot_without_its_library_says_what_to_install(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = tow("swf", files / "log.swf", "--plot", files / "a.svg")
    assert done.exit_code == 2 and "pip install 'towline[plot]'" in done.output


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--plot", "a.pdf"), "--plot: is 'a.pdf' (name a file that ends in .svg or .png)"),
        (("--add-nodes", "some"), "--add-nodes: is 'some'"),
        (("--add-nodes", "gpu=-1"), "there is no group of nodes 'gpu'"),
        (("--policy", "fifo"), "there is no policy 'fifo'"),
        (("--cluster", "missing.yaml"), "missing.yaml: cannot be read"),
    ],
)
def test_wrong_options_are_named(files: Path, more: tuple[str, ...], said: str) -> None:
    done = tow("events", files / "log.jsonl", *more)
    assert done.exit_code == 2 and said in done.output


@pytest.mark.parametrize("trace", ["events", "swf", "openb"])
def test_a_compressed_file_that_is_cut_off_is_named(files: Path, trace: str) -> None:
    name = {"events": "log.jsonl", "swf": "log.swf", "openb": "pods.csv"}[trace]
    broken = files / "broken.gz"
    broken.write_bytes(gzip.compress((files / name).read_bytes())[:-20])
    given = ("--cluster", files / "cluster.yaml", "--pods", broken) if trace == "openb" else (broken,)
    done = tow(trace, *given)
    assert done.exit_code == 2 and "broken.gz" in done.output


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        ("{a: {parent: b}}", "parent 'b' does not exist"),
        ("{a: {parent: night}, night: {}}", "policy 'wrong': queue 'night' has queues below it"),
        ("{a: {guaranteed: {cpu: 2}, max: {cpu: 1}}}", "is below its guaranteed"),
    ],
)
def test_queues_are_checked_before_anything_is_replayed(files: Path, queues: str, said: str) -> None:
    path = files / "wrong.yaml"
    path.write_text(f"policies:\n  right: {{}}\n  wrong: {{queues: {queues}}}\n")
    done = tow("swf", files / "log.swf", "--queue", "night", "--policies", path)
    assert done.exit_code == 2 and said in done.output


def test_an_order_is_no_policy_where_nobody_waits(files: Path) -> None:
    done = tow("openb", "--cluster", files / "cluster.yaml", "--pods", files / "pods.csv", "--policy", "easy")
    assert done.exit_code == 2 and "there is no policy 'easy'" in done.output


def test_the_same_seed_gives_the_same_bytes_whatever_the_hash_seed(files: Path) -> None:
    """One process a hash seed; each runs all three traces."""
    calls = [
        ["events", "log.jsonl", "--add-nodes", "1", "--policies", "policies.yaml", "--policy", "random"],
        ["swf", "log.swf", "--policy", "slowdown", "--policy", "unicef", "--policy", "easy-sjf"],
        [
            "openb",
            "--cluster",
            "cluster.yaml",
            "--pods",
            "pods.csv",
            "--seeds",
            "1-2",
            "--policy",
            "headroom",
        ],
    ]
    program = (
        "import json, sys\n"
        "from typer.testing import CliRunner\n"
        "from towline.cli.main import commands\n"
        "for call in json.loads(sys.argv[1]):\n"
        "    done = CliRunner().invoke(commands(), ['simulate', *call, '--json'])\n"
        "    assert done.exit_code == 0, done.output\n"
        "    print(done.stdout)\n"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", program, json.dumps(calls)],
            cwd=files,
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert answers[0] == answers[1] and answers[0].count(b"policies") == 3


def test_the_files_of_the_guide_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "guides" / "simulate.md").read_text()
    cluster, policies = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    for name, text, read in (("c", cluster, read_cluster), ("p", policies, read_policies)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        assert read(path)
