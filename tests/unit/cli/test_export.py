"""``tow events export``: times, and files that are whole or not there."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import towline.client
from towline.cli.main import commands
from towline.errors import Unavailable

LINES = [b'{"kind":"export"}', b'{"kind":"job.submitted"}']


class Server:
    """Answers with ``LINES``, and may break off after them."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str | None]] = []
        self.breaks = False

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def export_events(self, since_ms: int, pool: str | None) -> AsyncGenerator[bytes, None]:
        self.asked.append((since_ms, pool))
        for line in LINES:
            yield line
        if self.breaks:
            raise Unavailable("it broke off")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()

    async def connect(**_: object) -> Server:
        return made

    monkeypatch.setattr(towline.client, "connect", connect)
    return made


def test_lines_go_to_stdout_or_to_a_file(server: Server, tmp_path: Path) -> None:
    done = CliRunner().invoke(commands(), ["events", "export"])
    assert done.exit_code == 0 and done.stdout.encode().splitlines() == LINES
    path = tmp_path / "log.jsonl"
    done = CliRunner().invoke(commands(), ["events", "export", "-o", str(path), "--pool", "gpu"])
    assert done.exit_code == 0 and path.read_bytes().splitlines() == LINES
    assert server.asked == [(0, None), (0, "gpu")]


def test_a_file_is_not_there_where_the_answer_broke_off(server: Server, tmp_path: Path) -> None:
    server.breaks = True
    done = CliRunner().invoke(commands(), ["events", "export", "-o", str(tmp_path / "log.jsonl")])
    assert done.exit_code == 3 and list(tmp_path.iterdir()) == []


def test_a_link_or_pipe_is_written_into_and_stays_one(server: Server, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("log.jsonl")
    done = CliRunner().invoke(commands(), ["events", "export", "-o", str(tmp_path / "link")])
    assert done.exit_code == 0 and (tmp_path / "log.jsonl").read_bytes().splitlines() == LINES
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = CliRunner().invoke(commands(), ["events", "export", "-o", str(pipe)])
        assert done.exit_code == 0 and os.read(reader, 4096).splitlines() == LINES
    finally:
        os.close(reader)
    assert pipe.is_fifo() and sorted(path.name for path in tmp_path.iterdir()) == [
        "link",
        "log.jsonl",
        "pipe",
    ]


def test_times_are_ago_or_moments(server: Server) -> None:
    before_ms = int(time.time() * 1000)
    for since in ("2h", "2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00", "2023-11-14 22:13:20"):
        assert CliRunner().invoke(commands(), ["events", "export", "--since", since]).exit_code == 0
    ago, *moments = [since_ms for since_ms, _ in server.asked]
    assert 0 <= ago - (before_ms - 7_200_000) < 600_000
    assert moments == [1_700_000_000_000] * 3


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--since", "yesterday"), "--since: 'yesterday' is no time"),
        (("-o", "missing/log.jsonl"), "missing/log.jsonl cannot be written"),
        (("-o", "."), ". cannot be written: Is a directory"),
    ],
)
def test_what_is_wrong_is_refused(server: Server, more: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(commands(), ["events", "export", *more])
    assert done.exit_code == 2 and said in done.output
