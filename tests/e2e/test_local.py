"""The local server: started by the first command, joined by the next ones, replaced, stopped, idle."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.home import Home, Maker, gone, until

import towline
from towline.client import SyncClient


def own_server(test: Callable[..., None]) -> Callable[..., None]:
    why = "the server of one machine starts, ends and is replaced by itself; a cluster's is its operator's"
    return pytest.mark.own_home(pytest.mark.one_machine(why)(test))


@own_server
def test_first_commands_at_once_start_one_server(home: Home, script: Maker) -> None:
    file = home.job_file({"a": script("true")})
    commands = [home.start("run", file, "--json") for _ in range(6)]
    assert [command.wait() for command in commands] == [0] * 6
    for command in commands:
        command.communicate()
    assert len(home.json("jobs")["jobs"]) == 6
    assert {role: len(pids) for role, pids in home.processes().items()} == {
        "server": 1,
        "agent": 1,
        "keeper": 1,
        "supervisor": 1,
    }


@own_server
def test_home_is_open_to_its_owner_alone(home: Home) -> None:
    home.tow("jobs")
    for path in (home.path, home.path / "tow.sock", home.path / "state.db", home.path / "logs"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@own_server
def test_containers_go_on_while_no_server_runs(home: Home, script: Maker) -> None:
    job = home.submit({"a": script("echo begun; while ! test -e go; do sleep 0.05; done; echo done")})
    follower = home.start("logs", job, "-f")
    assert follower.stdout is not None
    assert follower.stdout.readline() == "begun\n"
    payload = home.payload_of(b"while")
    before = home.processes()["server"]
    assert home.json("stop") == {"stopped": True}
    for pid in before:
        gone(pid)
    (Path(f"/proc/{payload}/cwd") / "go").touch()
    gone(payload)
    assert home.json("wait", job)["state"] == "succeeded"
    assert home.tow("logs", job).stdout == "begun\ndone\n"
    assert follower.communicate()[0] == "done\n", "a follower reads on over the end of a server"


@own_server
def test_server_of_another_build_is_replaced(home: Home, script: Maker, tmp_path: Path) -> None:
    job = home.submit({"a": script("while ! test -e go; do sleep 0.05; done")})
    first = home.processes()["server"]
    other = tmp_path / "other"
    shutil.copytree(Path(towline.__file__).parent, other / "towline")
    (other / "towline" / "__init__.py").write_text('__version__ = "9.9.9"\n')
    home.env["PYTHONPATH"] = str(other)
    assert home.json("version")["version"] == "9.9.9"
    assert home.json("job", job)["state"] == "running"
    second = home.processes()["server"]
    assert len(second) == 1
    assert second != first
    del home.env["PYTHONPATH"]
    payload = home.payload_of(b"while")
    (Path(f"/proc/{payload}/cwd") / "go").touch()
    assert home.json("wait", job)["state"] == "succeeded"


def test_many_commands_at_once_share_the_machine(home: Home, script: Maker) -> None:
    busy = script("sleep 0.2", array=3, resources={"cpu": 1})
    files = [home.job_file({"a": busy}, name=f"job{number}") for number in range(4)]
    commands = [home.start("run", file, "--json") for file in files]
    cpus = os.cpu_count() or 1
    most = 0

    def running() -> bool:
        nonlocal most
        node = home.json("nodes")["nodes"]
        most = max([most, *(round(n["cpu"] - n["cpu_free"]) for n in node)])
        return all(command.poll() is not None for command in commands)

    until(running, "all jobs have ended")
    assert [(command.wait(), command.communicate()[1]) for command in commands] == [(0, "")] * 4
    assert most <= cpus


@own_server
def test_idle_server_ends_and_the_next_command_starts_another(home: Home) -> None:
    home.env["TOWLINE_IDLE_S"] = "0.2"
    home.tow("jobs")
    for server in home.processes().get("server", ()):  # it may have gone already
        gone(server)
    assert not (home.path / "tow.sock").exists()
    assert home.json("jobs") == {"jobs": [], "next_cursor": None}


@own_server
def test_commands_race_with_servers_that_end(home: Home, script: Maker) -> None:
    home.env["TOWLINE_IDLE_S"] = "0.3"
    file = home.job_file({"a": script("true")})
    for _ in range(3):
        commands = [home.start("submit", file) for _ in range(3)]
        for command in commands:
            out, err = command.communicate()
            assert command.returncode == 0, err
            assert home.json("wait", out.strip())["state"] == "succeeded"
    assert len(home.json("jobs")["jobs"]) == 9


@own_server
def test_broken_database_is_told_and_is_status_3(home: Home) -> None:
    (home.path / "state.db").write_bytes(b"this is no database" * 100)
    done = home.tow("jobs", status=3)
    assert done.stdout == ""
    assert "server.log" in done.stderr
    assert "database" in done.stderr


@own_server
def test_stopping_twice_is_no_error(home: Home) -> None:
    home.tow("jobs")
    assert home.json("stop") == {"stopped": True}
    assert home.json("stop") == {"stopped": False}
    until(lambda: "server" not in home.processes(), "its process is gone")


def test_same_key_is_the_same_job(home: Home, script: Maker) -> None:
    file = home.job_file({"a": script("true")})
    first = home.tow("submit", file, "--key", "k").stdout
    assert home.tow("submit", file, "--key", "k").stdout == first
    other = home.job_file({"a": script("false")}, name="other")
    assert "key" in home.tow("submit", other, "--key", "k", status=2).stderr


@own_server
def test_sdk_waits_and_reads_from_a_thread(
    home: Home, script: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SyncClient(home.path) as client:
        job = client.submit(
            {"name": "sdk", "tasks": {"a": script("echo $TOW_INDEX; sleep 0.1", array=3)}},
        )
        kinds = [event.kind for event in job.events()]
        assert (kinds[0], kinds[-1]) == ("job.submitted", "job.ended")
        assert job.wait().state == "succeeded"
        assert [element.state for element in job.elements("a")] == ["succeeded"] * 3
        assert b"".join(chunk.data for chunk in job.logs("a", 2, follow=True)) == b"2\n"
        assert [found.name for found in client.jobs().jobs] == ["sdk"]
        assert job.why().state == "succeeded"
        assert job.document()["name"] == "sdk"
        assert client.server().local
        assert client.nodes()[0].state == "ready"
    assert not [thread for thread in threading.enumerate() if thread.name == "towline-client"]


def test_kill_of_a_command_leaves_the_job_running(home: Home, script: Maker) -> None:
    file = home.job_file({"a": script("while ! test -e go; do sleep 0.05; done")})
    command = home.start("run", file)
    assert command.stdout is not None
    assert "a: started" in command.stdout.readline()
    command.send_signal(signal.SIGKILL)
    command.communicate()
    (job,) = home.json("jobs", "--state", "running")["jobs"]
    home.tow("cancel", job["id"], "--kill")
    assert home.json("wait", job["id"], status=1)["state"] == "cancelled"
    with sqlite3.connect(home.database) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()
