"""Descriptors by name over a socket pair, and the file of orphans' exits."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.small_disk import SmallDisk

from towline.agent.supervision import handover
from towline.agent.supervision.handover import Orphan, append_orphan, read_orphans


def test_descriptors_arrive_by_name() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pipes = {f"out.{n}": os.pipe() for n in range(300)}
    handover.send_descriptors(ours, {name: ends[0] for name, ends in pipes.items()})
    handover.send_forget(ours, ["out.1", "out.2"])
    ours.close()
    got: dict[str, int] = {}
    forgotten: list[str] = []
    while (message := handover.receive(theirs)) is not None:
        sign, names, fds = message
        if sign == "+":
            got.update(zip(names, fds, strict=True))
        else:
            forgotten += names
    assert forgotten == ["out.1", "out.2"]
    assert list(got) == list(pipes)
    for name, (reader, writer) in pipes.items():
        os.write(writer, name.encode())
        assert os.read(got[name], 100) == name.encode()
        assert not os.get_inheritable(got[name])
        for fd in (reader, writer, got[name]):
            os.close(fd)
    theirs.close()


def test_orphans_are_read_on_from_where_one_was(tmp_path: Path) -> None:
    path = str(tmp_path / "exits")
    assert handover.read_orphans(path, 0) == ([], 0)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    first, second = Orphan(1, 2, 3, 4, 5, 6), Orphan(7, 8, 9, 10, 11, 12)
    handover.append_orphan(file, first)
    found, offset = handover.read_orphans(path, 0)
    assert found == [first]
    os.write(file, b"damaged line\n")
    handover.append_orphan(file, second)
    os.write(file, b"13 14")
    found, end = handover.read_orphans(path, offset)
    assert found == [second]
    os.write(file, b" 15 16 17 18\n")
    os.close(file)
    assert handover.read_orphans(path, end)[0] == [Orphan(13, 14, 15, 16, 17, 18)]


def test_a_bequest_comes_back() -> None:
    reader, writer = os.pipe()
    memory = handover.write_bequest({"out.1": reader}, writer)
    assert os.get_inheritable(reader)
    assert os.get_inheritable(memory)
    held, lock = handover.read_bequest(memory)
    assert (held, lock) == ({"out.1": reader}, writer)
    assert not os.get_inheritable(reader)
    os.close(reader)
    os.close(writer)


def test_an_orphan_is_recorded_whole_or_not_at_all(tmp_path: Path) -> None:
    with SmallDisk(tmp_path, "4k"):
        file = os.open(tmp_path / "exits", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            orphan = Orphan(1, 2, 3, 4, 5, 6)
            with pytest.raises(OSError, match="No space left"):
                while True:
                    append_orphan(file, orphan)
            found, end = read_orphans(str(tmp_path / "exits"), 0)
            assert set(found) == {orphan}
            assert end == os.fstat(file).st_size, "no half line is left"
        finally:
            os.close(file)


def test_messages_to_a_full_disk_raise_nothing() -> None:
    program = (
        "import sys; from towline.agent.supervision.handover import Messages; sys.stderr = Messages();"
        "sys.stderr.write('x'); print('y', file=sys.stderr); print('went on')"
    )
    with Path("/dev/full").open("wb", buffering=0) as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stderr=full, stdout=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (0, "went on\n")
