"""The commands as a whole: help, completion, and what needs no server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from towline.cli import main
from towline.cli.arguments import complete_job
from towline.cli.main import commands

EXPLAINED = ["run", "submit", "wait", "attach", "jobs", "job", "tasks", "why", "cancel", "logs"]
EXPLAINED += ["doctor", "nodes", "version", "stop", "schema", "init"]
SLOW_MODULES = ("numpy", "sqlalchemy", "litestar", "rich", "yaml", "httpx2", "uvicorn")


def test_help_lists_all_commands() -> None:
    result = CliRunner().invoke(commands(), ["--help"])
    assert result.exit_code == 0
    for command in EXPLAINED:
        assert f"\n  {command} " in result.stdout


@pytest.mark.parametrize("command", EXPLAINED)
def test_help_of_each_command_explains_json_and_has_examples(command: str) -> None:
    result = CliRunner().invoke(commands(), [command, "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert "Example" in result.stdout or command in ("version",)
    assert "\b" not in result.stdout


def test_help_loads_nothing_slow() -> None:
    code = (
        "import sys; from towline.cli.main import commands; commands(); "
        f"print([m for m in {SLOW_MODULES} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_module_adds_the_commands_that_it_is_loaded_for() -> None:
    whole = commands()
    assert _names(whole) == [name for names in main.COMMANDS.values() for name in names]
    for names in main.COMMANDS.values():
        assert _names(commands(names[0])) == [*names]


def _names(program: typer.Typer) -> list[str]:
    """In the order in which help shows them; it shows groups behind single commands."""
    order = [name for names in main.COMMANDS.values() for name in names]
    there = [*program.registered_commands, *program.registered_groups]
    return sorted((str(each.name) for each in there), key=order.index)


def test_a_command_loads_no_other_ones_module() -> None:
    code = "import sys; sys.argv = ['tow', 'schema', '--help']; from towline.cli.main import main; main()"
    told = f"import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    loaded = {f"towline.cli.{module}" for module in main.COMMANDS} & {*done.stderr.split()}
    assert loaded == {"towline.cli.files"}
    assert "Usage: " in done.stdout
    alone = done.stdout.partition("Options:")
    assert alone[2] == CliRunner().invoke(commands(), ["schema", "--help"]).stdout.partition("Options:")[2]


def test_unknown_options_are_refused_input() -> None:
    assert CliRunner().invoke(commands(), ["jobs", "--nonsense"]).exit_code == 2
    assert CliRunner().invoke(commands(), ["nonsense"]).exit_code == 2


def test_init_writes_an_example_that_loads_and_spares_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from towline.model.document import load_file

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(commands(), ["init", "--json"])
    assert result.exit_code == 0
    written = Path(json.loads(result.stdout)["file"])
    assert load_file(written).spec.name == "example"
    again = CliRunner().invoke(commands(), ["init"])
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_schema_and_version_are_json() -> None:
    schema = json.loads(CliRunner().invoke(commands(), ["schema"]).stdout)
    assert schema["type"] == "object"
    assert json.loads(CliRunner().invoke(commands(), ["version", "--json"]).stdout)["version"]


def test_bad_files_are_refused_before_a_server_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("TOWLINE_HOME", str(home))
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\ntasks: {a: {comand: [x]}}\n")
    for arguments in (["run", str(bad)], ["submit", str(bad)], ["run", "--cpu", "0", "--", "true"]):
        result = CliRunner().invoke(commands(), arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
    assert not home.exists()


def test_completion_is_silent_where_no_server_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_HOME", str(tmp_path / "home"))
    assert complete_job("fl") == []
    assert not (tmp_path / "home" / "tow.sock").exists()
