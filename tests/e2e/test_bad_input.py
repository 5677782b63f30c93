"""Bad input: exit status 2, a message that helps, and nothing done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.e2e.home import Home, Maker, until

TASK = "{runtime: process, command: [x]"
BAD_FILES = {
    "cycle": (f"name: x\ntasks:\n  a: {TASK}, needs: [b]}}\n  b: {TASK}, needs: [a]}}\n", ["a", "b"]),
    "unknown task": (f"name: x\ntasks: {{a: {TASK}, needs: [nothere]}}}}\n", ["nothere"]),
    "array": (f"name: x\ntasks: {{a: {TASK}, array: 5-1}}}}\n", ["5-1"]),
    "memory 0": (f"name: x\ntasks: {{a: {TASK}, resources: {{memory: 0}}}}}}\n", ["memory"]),
    "memory -1": (f"name: x\ntasks: {{a: {TASK}, resources: {{memory: -1}}}}}}\n", ["memory"]),
    "memory XB": (f"name: x\ntasks: {{a: {TASK}, resources: {{memory: 64 XB}}}}}}\n", ["64 XB"]),
    "misspelt": ("name: x\ntasks: {a: {runtime: process, comand: [x]}}\n", ["did you mean 'command'"]),
    "name": (f"name: 'a/b'\ntasks: {{a: {TASK}}}}}\n", ["a/b"]),
    "name with an escape code": (f'name: "a\\e[2J"\ntasks: {{a: {TASK}}}}}\n', ["name"]),
    "duplicate keys": (f"name: x\nname: y\ntasks: {{a: {TASK}}}}}\n", [":2:", "name"]),
    "empty": ("", ["is empty"]),
    "list": ("- a\n- b\n", ["list"]),
    "not YAML": ("name: [\n", [":"]),
    "bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{chr(b + 1)}: &{chr(b + 1)} [{','.join(['*' + chr(b)] * 9)}]\n" for b in range(97, 110)),
        [":"],
    ),
    "mount of /": (
        "name: x\ntasks: {a: {image: 'oci:./i:1', command: [x], mounts: [{source: /, target: /x}]}}\n",
        ["mounts"],
    ),
    "mount of ..": (
        "name: x\ntasks: {a: {image: 'oci:./i:1', command: [x], mounts: [{source: ../x, target: /x}]}}\n",
        ["mounts"],
    ),
}


@pytest.mark.own_home
@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused(home: Home, tmp_path: Path, case: str) -> None:
    text, words = BAD_FILES[case]
    (tmp_path / "bad.yaml").write_text(text)
    done = home.tow("run", "bad.yaml", "--json", status=2)
    assert done.stdout == ""
    assert done.stderr.startswith("bad.yaml")
    assert "\x1b" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert home.is_untouched()


@pytest.mark.own_home
def test_what_is_no_file_is_refused(home: Home, tmp_path: Path) -> None:
    (tmp_path / "big.yaml").write_text("#" * (5 * 1024**2 + 1))
    (tmp_path / "folder").mkdir()
    for name, word in (("big.yaml", "5 MiB"), ("folder", "folder"), ("none.yaml", "no such file")):
        done = home.tow("submit", name, status=2)
        assert word in done.stderr
    assert home.is_untouched()


def test_bad_references_and_parameters_are_refused(home: Home, script: Maker) -> None:
    file = home.job_file({"a": script("echo {{params.year}}")}, params={"year": 2013})
    assert "yaer" in home.tow("run", file, "-p", "yaer=1", status=2).stderr
    assert "whole number" in home.tow("run", file, "-p", "year=soon", status=2).stderr
    job = home.tow("submit", file, "-p", "year=2014").stdout.strip()
    home.tow("wait", job)
    assert home.tow("logs", job).stdout == "2014\n"
    for bad in ("nothere", f"{job}/b", f"{job}/a.7", f"{job}/a.x", ""):
        done = home.tow("logs", bad, status=2)
        assert done.stderr
    home.tow("why", f"{job}/nothere", status=2)
    home.tow("cancel", "nothere", status=2)


def test_more_than_the_node_has_waits_with_a_true_reason(home: Home, script: Maker) -> None:
    job = home.submit({"a": script("true", resources={"memory": "999Ti"})})
    until(lambda: home.json("nodes")["nodes"], "the node is there")
    answer = home.json("why", f"{job}/a")
    assert answer["state"] == "queued"
    assert "999 TiB" in json.dumps(answer)
    home.tow("cancel", job)


@pytest.mark.one_machine("sets TOWLINE_SERVER itself")
def test_remote_servers_are_refused_for_now(home: Home) -> None:
    home.env["TOWLINE_SERVER"] = "https://tow.example"
    assert "TOWLINE_SERVER" in home.tow("jobs", status=2).stderr


def test_mounts_from_outside_of_the_jobs_folder_are_refused(home: Home, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    for source in ("/etc", "./link", "./link/ssl", "./none"):
        done = home.tow("run", "oci:./i:1", "--mount", f"{source}:/x", "--", "ls", status=2)
        assert "tasks.main.mounts[0].source" in done.stderr
    assert home.jobs() == []
