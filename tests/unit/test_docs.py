"""The documents say what the code does."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from towline.model.document import load_tree, parse_text

ROOT = Path(__file__).parents[2]


def test_the_state_diagrams_are_those_of_the_tables() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    drawn = runpy.run_path(str(ROOT / "scripts" / "state_diagrams.py"))["drawn"]
    assert drawn(page) == page, "run: python scripts/state_diagrams.py"
    assert page.count("stateDiagram-v2") == 3


def test_every_folder_that_the_architecture_names_exists() -> None:
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    rows = page.split("## Where things are")[1].split("\n\n")[1].splitlines()[2:]
    names = [part.strip("` ") for row in rows for part in row.split("|")[1].split(",")]
    assert len(names) > 10
    for name in names:
        assert (ROOT / "src" / "towline" / name).exists(), name


@pytest.mark.parametrize("page", ["README.md", "docs/guides/job-file.md", "docs/guides/cli.md"])
def test_the_job_files_in_the_docs_load(page: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
    whole = [block for block in blocks if re.search(r"^tasks:", block, flags=re.MULTILINE)]
    assert whole or page.endswith("cli.md")
    for block in whole:
        document = parse_text(block, page)
        load_tree(document.tree, {}, page, document.lines)


def test_the_commands_in_the_readme_exist() -> None:
    page = (ROOT / "README.md").read_text()
    used = set(re.findall(r"(?:^|`|; )tow ([a-z]+)", page, flags=re.MULTILINE))
    assert len(used) > 10
    help_text = subprocess.run(
        [Path(sys.executable).parent / "tow", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in used:
        assert re.search(rf"^  {command}\b", help_text, flags=re.MULTILINE), command
