"""Traces through the pool of production, on machines small enough to work it out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from towline.cli.main import commands
from towline.server.leader.rules import ORDERS
from towline.simulation.described.policies import Setup, named, placement_names
from towline.simulation.replay.engine import replay
from towline.simulation.replay.report import ReplayView, report
from towline.simulation.traces import batch, inflation
from towline.simulation.traces.openb import Experiment, OpenbNode, OpenbPod
from towline.simulation.traces.policies import typical
from towline.simulation.traces.swf import SwfJob

NODES = [OpenbNode("a", 8_000, 1024, 2, "T4"), OpenbNode("b", 8_000, 1024, 1, "A10")]


def pod(name: str, gpus: int, milli: int = 1000, models: tuple[str, ...] = (), cpu: int = 1_000) -> OpenbPod:
    return OpenbPod(name, cpu, 128, gpus, milli, models)


def filled(experiment: Experiment, policy: str = "headroom") -> inflation.Outcome:
    shapes = typical(experiment.pods)
    return inflation.replay(experiment, Setup(policy, placement=policy).rules(shapes))


@pytest.mark.parametrize("policy", placement_names())
def test_what_fits_is_placed_and_what_does_not_is_dropped(policy: str) -> None:
    coming = [
        pod("0", 2),
        pod("1", 1, models=("A10",)),
        pod("2", 1, milli=500),  # no GPU is left
        pod("3", 0),
        pod("4", 0, cpu=9_000),  # no node has so many CPUs
    ]
    experiment = Experiment(NODES, coming)
    outcome = filled(experiment, policy)
    assert outcome.failed == 2 and outcome.pods == 5
    assert outcome.allocation == {100: 100.0}


def test_a_share_and_its_rest_fill_one_gpu() -> None:
    coming = [pod("0", 1, 600, ("A10",)), pod("1", 1, 400, ("A10",)), pod("2", 2, models=("T4",))]
    experiment = Experiment(NODES, coming)
    outcome = filled(experiment)
    assert outcome.failed == 0 and outcome.allocation == {100: 100.0}


def job(number: int, submitted_s: int, run_s: int, size: int) -> SwfJob:
    return SwfJob(number, submitted_s, run_s, run_s, size, user=1, executable=1)


def replayed(jobs: list[SwfJob], processors: int, order: str = "slowdown") -> ReplayView:
    (setup,) = named([order])
    nodes = batch.one_machine(processors).nodes
    return report(replay(batch.workload_of(jobs), nodes, setup, setup.rules([])))


def test_waits_and_slowdowns_of_a_full_machine() -> None:
    """The second waits for the first; a job of half the machine that arrives last runs beside nothing."""
    jobs = [job(1, 0, 100, 2), job(2, 0, 100, 2), job(3, 500, 5, 1)]
    result = replayed(jobs, 2)
    assert result.jobs == 3
    assert (result.mean_wait_s, result.max_wait_s) == (33.333, 100)
    assert result.mean_bounded_slowdown == pytest.approx((1 + 2 + 1) / 3, abs=0.001)
    assert result.utilisation == pytest.approx((100 * 2 + 100 * 2 + 5) / (2 * 505), abs=0.001)


def test_a_log_of_many_jobs_ends_and_wastes_nothing_that_it_could_use() -> None:
    jobs = [job(number, number * 7 % 50, 10 + number % 13, 1 + number % 3) for number in range(60)]
    jobs.sort(key=lambda one: one.submitted_s)
    first = replayed(jobs, 4)
    assert first == replayed(jobs, 4)
    assert first.utilisation > 0.7


@pytest.mark.parametrize("policy", ORDERS)
def test_a_short_job_goes_past_a_large_one_that_has_to_wait(policy: str) -> None:
    """Two of three processors are taken for 100 s, the large job needs all: 40 s on one delay nobody."""
    jobs = [job(1, 0, 100, 2), job(2, 1, 10, 3), job(3, 2, 40, 1)]
    result = replayed(jobs, 3, policy)
    assert result.max_wait_s == 99 and result.mean_wait_s == 33


def test_the_command_compares_orders(tmp_path: Path) -> None:
    log = tmp_path / "log.swf"
    lines = [f"{at} {at} -1 {20 + at} 1 -1 -1 2 60 -1 1 1 1 1 1 1 -1 -1" for at in range(1, 30)]
    log.write_text("; MaxProcs: 4\n" + "\n".join(lines))
    names = [word for name in ORDERS for word in ("--policy", name)]
    done = CliRunner().invoke(commands(), ["simulate", "swf", str(log), *names, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert list(told) == ["policies"] and list(told["policies"]) == list(ORDERS)
    assert all(
        one["jobs"] == 29 and one["left_out"] == 0 and one["mean_wait_s"] > 0
        for one in told["policies"].values()
    )


def test_the_command_compares_policies(tmp_path: Path) -> None:
    nodes, pods = tmp_path / "nodes.csv", tmp_path / "pods.csv"
    nodes.write_text("sn,cpu_milli,memory_mib,gpu,model\na,8000,1024,4,T4\nb,8000,1024,4,T4\n")
    rows = [f"p{number},500,64,1,100,\n" for number in range(6)]
    pods.write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n" + "".join(rows))
    arguments = ["simulate", "openb", "--nodes", str(nodes), "--pods", str(pods), "--seeds", "1-3"]
    names = [word for name in placement_names() for word in ("--policy", name)]
    done = CliRunner().invoke(commands(), [*arguments, *names, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["policies"]
    assert list(told) == placement_names()
    for one in told.values():
        assert list(one) == ["allocation", "failed_pods"] and list(one["allocation"]) == ["90", "100", "130"]
        assert 0 < one["allocation"]["130"] <= 100 and one["failed_pods"] >= 0


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--seeds", "x", "--seeds: is 'x'"), ("--policy", "hedroom", "did you mean 'headroom'?")],
)
def test_bad_options_are_named(tmp_path: Path, option: str, value: str, said: str) -> None:
    arguments = ["simulate", "openb", "--nodes", str(tmp_path), "--pods", str(tmp_path), option, value]
    done = CliRunner().invoke(commands(), arguments)
    assert done.exit_code == 2 and said in done.output


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands(), ["simulate", "swf", str(tmp_path / "no.swf"), "--processors", "4"])
    assert done.exit_code == 2 and "no.swf cannot be read" in done.output
