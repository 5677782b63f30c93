"""The commands as a whole: help, completion, and what needs no server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from towline.cli.arguments import complete_job
from towline.cli.main import app

COMMANDS = ["run", "submit", "wait", "attach", "jobs", "job", "tasks", "why", "cancel", "logs"]
COMMANDS += ["doctor", "nodes", "version", "stop", "schema", "init"]
SLOW_MODULES = ("numpy", "sqlalchemy", "litestar", "rich", "yaml", "httpx2", "uvicorn")


def test_help_lists_all_commands() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_explains_json_and_has_examples(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert "Example" in result.stdout or command in ("version",)
    assert "\b" not in result.stdout


def test_help_loads_nothing_slow() -> None:
    code = f"import sys, towline.cli.main; print([m for m in {SLOW_MODULES} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_options_are_refused_input() -> None:
    assert CliRunner().invoke(app, ["jobs", "--nonsense"]).exit_code == 2
    assert CliRunner().invoke(app, ["nonsense"]).exit_code == 2


def test_init_writes_an_example_that_loads_and_spares_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from towline.model.document import load_file

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["init", "--json"])
    assert result.exit_code == 0
    written = Path(json.loads(result.stdout)["file"])
    assert load_file(written).spec.name == "example"
    again = CliRunner().invoke(app, ["init"])
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_schema_and_version_are_json() -> None:
    schema = json.loads(CliRunner().invoke(app, ["schema"]).stdout)
    assert schema["type"] == "object"
    assert json.loads(CliRunner().invoke(app, ["version", "--json"]).stdout)["version"]


def test_bad_files_are_refused_before_a_server_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("TOWLINE_HOME", str(home))
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\ntasks: {a: {comand: [x]}}\n")
    for arguments in (["run", str(bad)], ["submit", str(bad)], ["run", "--cpu", "0", "--", "true"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
    assert not home.exists()


def test_completion_is_silent_where_no_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_HOME", str(tmp_path / "home"))
    assert complete_job("fl") == []
    assert not (tmp_path / "home" / "tow.sock").exists()
