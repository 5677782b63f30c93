"""``tow simulate --faults`` as it is called."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from towline.cli.main import commands
from towline.simulation import faults


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--seed: is needed"),
        (["--seed", "1", "--seeds", "1-2"], "--seeds are both there"),
        (["--seeds", "7"], "--seeds: is '7' (write the first and the last, such as 0-499)"),
        (["--seeds", "9-3"], "--seeds: is 9-3 (write 0 to 4294967295, in order)"),
        (["--seed", "-1"], "--seed: is -1"),
        (["--seed", "1", "--mode", "chaos"], "--mode: is 'chaos' (write safety or liveness)"),
        (["--seed", "1", "swf", "log.swf"], "--faults: goes with no trace"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(commands(), ["simulate", "--faults", *arguments])
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_seed_tells_its_history_and_several_are_summed_up() -> None:
    one = CliRunner().invoke(commands(), ["simulate", "--faults", "--seed", "4", "--mode", "safety"])
    assert one.exit_code == 0
    assert one.stdout.startswith("seed 4 (safety): ")
    assert "faults: " in one.stdout
    assert one.stdout.endswith("nothing was lost, nothing was doubled\n")
    several = CliRunner().invoke(commands(), ["simulate", "--faults", "--seeds", "4-5", "--json"])
    assert [json.loads(line)["seed"] for line in several.stdout.splitlines()] == [4, 5]


def test_a_broken_promise_is_shown_and_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = faults.simulate(4)

    def broken(seed: int, _: str | None) -> faults.Verdict:
        return faults.Verdict(
            **{**_fields(verdict), "seed": seed, "broken": ["twice"], "last": ["1 s a -> b"]}  # type: ignore[arg-type]
        )

    monkeypatch.setattr(faults, "simulate", broken)
    done = CliRunner().invoke(commands(), ["simulate", "--faults", "--seeds", "8-9"])
    assert done.exit_code == 1
    assert done.stdout.count("  1 s a -> b\n  BROKEN: twice\n") == 2
    assert "2 seeds" in done.stdout.splitlines()[-1]
    assert "2 broke a promise" in done.stdout.splitlines()[-1]


def _fields(verdict: faults.Verdict) -> dict[str, object]:
    return {name: getattr(verdict, name) for name in verdict.__dataclass_fields__}


def test_without_anything_it_shows_what_it_can() -> None:
    done = CliRunner().invoke(commands(), ["simulate"])
    assert "--faults" in done.stdout
    assert "swf" in done.stdout
