"""A cluster that outgrows SQLite: moved to PostgreSQL while its work goes on, backed up, restored."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import postgres
from tests.e2e.home import Maker, until
from tests.e2e.test_cluster import Cluster

pytestmark = pytest.mark.one_machine("makes a cluster of its own")
LONG = "i=0; while [ ! -e {go} ]; do sleep 0.1; done; echo went on"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="tow-"))
    made = Cluster(folder, tmp_path)
    yield made
    made.close()
    shutil.rmtree(folder, ignore_errors=True)


def stopped(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGTERM)
    assert server.wait(60) == 0


def test_a_grown_cluster_moves_to_postgresql_and_back_from_a_backup(cluster: Cluster, tmp_path: Path) -> None:
    tow, home = cluster.admin, cluster.admin.path
    server = cluster.serve()
    cluster.join("n1")
    process, go = Maker(), tmp_path / "go"
    assert tow.run({"a": process("echo one")}, name="before")["state"] == "succeeded"
    tow.tow("secret", "set", "kept", input="geheim")
    waiting = tow.submit({"a": process(LONG.format(go=go))}, name="long")
    until(lambda: tow.json("job", waiting)["counts"]["active"] == 1, "the long task to run")

    url = postgres.shared().own(home)
    refused = tow.tow("db", "copy", f"sqlite:{home}", url, status=2)
    assert refused.stderr.endswith(f"A server of {home} runs: stop it first.\n")
    stopped(server)
    copied = tow.json("db", "copy", f"sqlite:{home}", url)
    assert copied["rows"]["job"] == 2 and copied["rows"]["sealed"] == 2
    out = tow.tow("db", "copy", f"sqlite:{home}", url, status=1)
    assert "is closed: it was moved to postgresql://" in out.stderr

    # Without the setting the old file is still meant, and it is closed.
    old = cluster._start("server", home, "--listen", f"127.0.0.1:{cluster.port}")
    assert old.wait(60) == 1
    assert "is closed: it was moved to postgresql://towline@" in (home / "out").read_text()

    (home / "server.toml").write_text(f"store.url = {json.dumps(url)}\n")
    server = cluster.serve()
    until(lambda: cluster.state("n1") == "ready", "the node to come back")
    go.touch()
    tow.tow("wait", waiting)
    assert tow.tow("logs", waiting).stdout == "went on\n"
    assert tow.run({"a": process("echo two")}, name="after")["state"] == "succeeded"
    assert [job["name"] for job in tow.json("jobs")["jobs"]] == ["after", "long", "before"]
    assert [entry["name"] for entry in tow.json("secret", "ls")["secrets"]] == ["kept"]

    upgraded = tow.json("db", "upgrade")
    assert upgraded["before"] == upgraded["now"]
    assert 0 < postgres.shared().backends() <= 10
    backup = tmp_path / "towline.backup"
    tow.tow("backup", str(backup))
    assert tow.run({"a": process("echo three")}, name="later")["state"] == "succeeded"
    stopped(server)
    other = postgres.shared().own(f"{home} restored")
    assert tow.json("restore", str(backup), "--store", other)["rows"]["job"] == 3
    (home / "server.toml").write_text(f"store_url = {json.dumps(other)}\n")
    closed = cluster._start("server", home, "--listen", f"127.0.0.1:{cluster.port}")
    assert closed.wait(60) == 1
    assert "is closed: it was restored from a backup of " in (home / "out").read_text()
    tow.tow("db", "raise-terms")
    cluster.serve()
    until(lambda: cluster.state("n1") == "ready", "the node to come back")
    assert [job["name"] for job in tow.json("jobs")["jobs"]] == ["after", "long", "before"]
    assert tow.run({"a": process("echo four")}, name="again")["state"] == "succeeded"


def test_a_database_that_is_away_for_a_while_disturbs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    tow, home, process = cluster.admin, cluster.admin.path, Maker()
    go, runs = tmp_path / "go", tmp_path / "runs"
    database = postgres.started()
    try:
        home.mkdir(mode=0o700)
        (home / "server.toml").write_text(f"store.url = {json.dumps(database.url)}\n")
        cluster.serve()
        cluster.join("n1")
        script = f"echo $TOW_ATTEMPT >>{runs}; {LONG.format(go=go)}"
        running = tow.submit({"a": process(script)}, name="running")
        until(lambda: runs.exists(), "the task to run")
        database.stop(signal.SIGQUIT)
        go.touch()  # it ends while nobody can note it
        refused = tow.tow("jobs", status=None)
        assert refused.returncode in (1, 3), refused
        assert "cannot be reached" in refused.stderr or "connection was lost" in refused.stderr, refused
        late = tow.start("submit", tow.job_file({"a": process("echo late")}, "late"))
        database.start()
        tow.tow("wait", running)
        assert tow.tow("logs", running).stdout == "went on\n"
        assert runs.read_text() == "1\n"
        job, said = late.communicate(timeout=120)
        assert late.returncode == 0, said
        tow.tow("wait", job.strip())
        assert [job["name"] for job in tow.json("jobs")["jobs"]] == ["late", "running"]
        assert database.backends() <= 10
    finally:
        database.remove()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("db", "copy", "sqlite:/nowhere", "postgresql://h/d"),
            "FROM is 'sqlite:/nowhere': there is no file",
        ),
        (
            ("db", "copy", "postgresql://h/d", "postgresql://h/d"),
            "tow db copy goes from sqlite:PATH to postgresql",
        ),
        (
            ("db", "copy", "mysql://h/d", "postgresql://h/d"),
            "FROM begins with 'mysql': write postgresql://USER@",
        ),
        (("db", "upgrade", "postgresql://tow:geheim@h"), "STORE names no database: write postgresql://USER@"),
        (("backup", "b", "--store", "db"), "STORE begins with 'no scheme': write postgresql://USER@"),
    ],
)
def test_what_is_no_store_is_refused(cluster: Cluster, arguments: tuple[str, ...], said: str) -> None:
    cluster.admin.path.mkdir(mode=0o700)
    done = cluster.admin.tow(*arguments, status=2)
    assert said in done.stderr and "geheim" not in done.stderr


def test_a_wrong_store_url_is_told_with_where_it_stands(cluster: Cluster) -> None:
    home = cluster.admin.path
    home.mkdir(mode=0o700)
    (home / "server.toml").write_text('[store]\nurl = "mysql://tow:geheim@db/tow"\n')
    out = cluster.admin.tow("db", "upgrade", status=2).stderr
    assert f"{home}/server.toml: store_url begins with 'mysql': write postgresql://USER@HOST" in out
    assert "geheim" not in out
    (home / "server.toml").unlink()
    cluster.admin.env["TOWLINE_STORE_URL"] = "postgresql://tow:geheim@127.0.0.1:1/tow"
    out = cluster.admin.tow("db", "upgrade", status=1).stderr
    assert "postgresql://tow@127.0.0.1:1/tow: it cannot be reached: look whether it runs" in out
    assert "geheim" not in out


def test_no_attempt_is_repeated_after_a_restore(cluster: Cluster, tmp_path: Path) -> None:
    """What had started since the backup, and what ended since and is forgotten, is tried again under a number
    of its own; what its node has as the backup says goes on."""
    tow, home, process = cluster.admin, cluster.admin.path, Maker()
    server = cluster.serve()
    cluster.join("n1")

    def numbers(task: str) -> list[int]:
        path = tmp_path / task
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def waits(task: str, then: str) -> str:
        said = f"echo $TOW_ATTEMPT >>{tmp_path}/{task}"
        return f"{said}; while [ ! -e {tmp_path}/{task}.$TOW_ATTEMPT ]; do sleep 0.1; done; {then}"

    again = {"limit": 9, "backoff": {"first": "1ms"}}
    job = tow.submit(
        {
            "stays": process(waits("stays", "exit 0")),
            "fails": process(
                f'if [ "$TOW_ATTEMPT" -gt 9 ]; then echo $TOW_ATTEMPT >>{tmp_path}/fails; exit 0; fi;'
                + waits("fails", "exit 1"),
                retries=again,
            ),
            "gate": process(
                f'if [ "$TOW_ATTEMPT" -gt 9 ]; then echo $TOW_ATTEMPT >>{tmp_path}/gate; exit 0; fi;'
                + waits("gate", "exit 0")
            ),
            "behind": process(f"echo $TOW_ATTEMPT >>{tmp_path}/behind", needs=["gate"]),
        },
        name="long",
    )
    until(lambda: numbers("stays") == numbers("fails") == numbers("gate") == [1], "all three to run")
    until(lambda: tow.json("job", job)["counts"]["active"] == 3, "the server to know it")
    backup = tmp_path / "towline.backup"
    tow.tow("backup", str(backup))
    (tmp_path / "fails.1").touch()
    (tmp_path / "gate.1").touch()
    until(lambda: numbers("fails") == [1, 2] and numbers("behind") == [1], "what the backup does not know")
    until(lambda: tow.json("job", job)["counts"]["succeeded"] == 2, "the server to have it")
    stopped(server)
    for path in home.glob("state.db*"):
        path.unlink()
    tow.tow("restore", str(backup))
    tow.tow("db", "raise-terms")
    cluster.serve()
    until(lambda: cluster.state("n1") == "ready", "the node to come back")
    until(lambda: len(numbers("behind")) == 2, "what had ended to run again")
    (tmp_path / "stays.1").touch()
    tow.tow("wait", job)
    assert numbers("stays") == [1]
    for task, known in (("fails", [1, 2]), ("gate", [1]), ("behind", [1])):
        *before, last = numbers(task)
        assert before == known
        assert last > 1_000_000, (task, last)
