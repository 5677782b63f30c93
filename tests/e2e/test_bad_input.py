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
    "tab": (f"name: x\ntasks:\n\ta: {TASK}}}\n", [":3:", "tab", "indent with spaces"]),
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
def test_a_server_elsewhere_wants_a_token_and_an_authority(home: Home, tmp_path: Path) -> None:
    home.env["TOWLINE_SERVER"] = "https://tow.example"
    assert "TOWLINE_SERVER is set, but TOWLINE_TOKEN is not" in home.tow("jobs", status=2).stderr
    home.env["TOWLINE_TOKEN"] = "tow_x"
    assert "TOWLINE_SERVER is set, but TOWLINE_CA is not" in home.tow("jobs", status=2).stderr
    (tmp_path / "ca.pem").write_text("a letter")
    home.env["TOWLINE_CA"] = str(tmp_path / "ca.pem")
    assert f"TOWLINE_CA {tmp_path}/ca.pem is no certificate" in home.tow("jobs", status=2).stderr


@pytest.mark.own_home
def test_mistakes_are_named_before_anything_is_started(home: Home) -> None:
    for arguments, said in (
        (("run", "--runtime", "process"), "or a command behind --"),
        (("run", "--runtime", "proces", "--", "true"), "error: --runtime: is 'proces' (write oci, docker"),
        (("run", "--cpu", "x", "--runtime", "process", "--", "true"), "error: --cpu: is 'x'"),
        (("run", "--timeout", "5y", "--runtime", "process", "--", "true"), "error: --timeout: is '5y'"),
        (("run", "job.yaml", "--cpu", "2"), "--cpu is for a command behind --; of a job file, write it into"),
        (("context", "use", "lab"), "There is no context 'lab': the contexts are local."),
        (("context", "add", "local", "--server", "https://h", "--ca", "x"), "'local' cannot be a context's"),
        (("context", "add", "l", "--server", "https://h", "--ca", "sha256:5"), "--ca is 'sha256:5': write"),
        (("db", "upgrade", "sqlite:/nowhere/s.db"), "There is no store /nowhere/s.db"),
        (("backup", "b"), "There is no store"),
        (("restore", "nothing"), "There is no file nothing"),
    ):
        done = home.tow(*arguments, status=2)
        assert said in done.stderr, done.stderr
        assert done.stdout == ""
    assert home.is_untouched()


@pytest.mark.one_machine("the home becomes a cluster's")
@pytest.mark.own_home
def test_a_server_with_wrong_settings_leaves_the_home_as_it_is(home: Home, script: Maker) -> None:
    """One that runs for this machine is not stopped for it either."""
    job = home.submit({"a": script("sleep 1000")})
    (home.path / "server.toml").write_text('lost_after = "1s"\n')
    assert "lost_after" in home.tow("server", "--listen", "127.0.0.1:1", status=2).stderr
    assert "nothing.toml" in home.tow("server", "--config", "nothing.toml", status=2).stderr
    (home.path / "server.toml").unlink()
    assert "store_wait is 'soon'" in home.tow("server", "--store-wait", "soon", status=2).stderr
    assert not (home.path / "cluster").exists()
    assert home.json("job", job)["state"] == "running"
    home.tow("cancel", job, "--kill")


def test_mistakes_of_commands_are_named(home: Home, script: Maker) -> None:
    job = home.run({"a": script("true"), "b": script("false")}, status=1)["id"]
    for arguments, said in (
        (("job", "nothere"), "There is no job 'nothere': `tow jobs` lists"),
        (("job", ""), "JOB is empty"),
        (("tasks", f"{job}//"), "is not JOB, JOB/TASK or JOB/TASK.INDEX"),
        (("tasks", job, "--state", "runing"), "--state: there is no state 'runing': there are waiting, "),
        (("tasks", f"{job}/a.0", "--state", "failed"), "--state chooses tasks or elements"),
        (("priority", job, "200"), "priority 200 is out of range: write 0 to 100"),
        (("priority", job, "10"), "only what waits has a priority"),
        (("wait", job, "--timeout", "5y"), "--timeout is '5y': a time is 30s"),
        (("drain", "n", "--deadline", "5y"), "--deadline is '5y': a time is 30s"),
        (("node", "forget"), "Name the node that is to be forgotten"),
        (("node", "nothere"), "There is no node 'nothere': the nodes are "),
        (("secret", "rm", "nothere"), "There is no secret nothere: `tow secret ls`"),
        (("registry", "logout", "ghcr.io"), "There is no login of registry ghcr.io: `tow registry ls`"),
        (("registry", "login", "http://x", "-u", "a"), "'http://x' is no registry: use HOST or HOST:PORT"),
    ):
        done = home.tow(*arguments, status=2, input="x")
        assert said in done.stderr, done.stderr
    failed = home.json("tasks", job, "--state", "failed")["tasks"]
    assert [task["name"] for task in failed] == ["b"]


def test_mounts_from_outside_of_the_jobs_folder_are_refused(home: Home, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    for source in ("/etc", "./link", "./link/ssl", "./none"):
        done = home.tow("run", "oci:./i:1", "--mount", f"{source}:/x", "--", "ls", status=2)
        assert done.stderr.startswith("error: --mount: ")
    assert home.jobs() == []
