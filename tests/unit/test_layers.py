"""The shape of the code: its layers, its sizes and its names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests import tidy


def test_lower_layers_never_import_higher_ones():
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [linter, "--no-cache"], cwd=tidy.ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 kept" in result.stdout


def test_every_file_is_tidy():
    assert tidy.failures() == []


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A project of its own, in which a file is written and then checked."""
    monkeypatch.setattr(tidy, "ROOT", tmp_path)
    monkeypatch.setattr(tidy, "SOURCE", tmp_path / "src" / "towline")

    def write(name: str, text: str) -> list[str]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return tidy.failures()

    return write


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("src/towline/core/long.py", "x = 1\n" * 501, "has 501 lines, at most 500"),
        ("tests/unit/test_long.py", "x = 1\n" * 801, "has 801 lines, at most 800"),
        ("src/towline/core/f.py", "def f():\n" + "    x = 1\n" * 61, "f has 61 lines, at most 60"),
        ("src/towline/core/utils.py", "", "'utils' says nothing"),
        ("src/towline/helpers/a.py", "", "'helpers' says nothing"),
        ("src/towline/core/p.py", "print(1)\n", "prints: only the command line"),
        ("src/towline/core/t.py", "x = 1  # TO" + "DO later\n", "unfinished work"),
        ("tests/unit/test_s.py", "import time\ntime.sleep(1)\n", "sleeps: wait for"),
    ],
)
def test_a_broken_rule_is_told_with_what_to_do(source, name, text, expected):
    (message,) = source(name, text)
    assert message.startswith(name) and expected in message


def test_a_package_of_more_than_twelve_files_is_refused(source):
    for number in range(12):
        source(f"src/towline/core/a{number}.py", "")
    assert source("src/towline/core/__init__.py", "") == []
    (message,) = source("src/towline/core/a12.py", "")
    assert "has 13 files, at most 12: make a package" in message


def test_what_stays_inside_the_rules_is_not_told(source):
    assert source("src/towline/cli/p.py", "print(1)\n") == []
    assert source("src/towline/core/long.py", "x = 1\n" * 500) == []
    documented = 'def f():\n    """' + "a\n" * 70 + '    """\n' + "    x = 1\n" * 60
    assert source("src/towline/core/f.py", documented) == []
