"""Folders of secrets: in memory, for one user only, and removed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from towline.errors import NodeError
from towline.runtime import secrets
from towline.runtime.secrets import SecretFiles

VALUES = {"TOKEN": b"correct horse", "tls.key": b"\0\xff\n"}


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system in memory."""
    folder = Path("/dev/shm") / f"tow-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    secrets.remove(str(folder))


@pytest.fixture
def files(tmp_path: Path, memory: Path) -> SecretFiles:
    return SecretFiles(str(tmp_path), [str(memory)])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_can_read_them(files: SecretFiles) -> None:
    folder = Path(files.write("a1", VALUES, None))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == VALUES
    assert sorted(secrets.read(str(folder))) == sorted(VALUES.values())
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o400}
    assert {path.stat().st_uid for path in (folder, *folder.iterdir())} == {os.geteuid()}
    assert [mode(parent) for parent in list(folder.parents)[:2]] == [0o700, 0o700]


@pytest.mark.containers
def test_another_owner_can_be_given(files: SecretFiles) -> None:
    folder = Path(files.write("a1", VALUES, (1234, 5678)))
    for path in (folder, *folder.iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)


def test_they_are_written_anew_after_an_agent_that_died(files: SecretFiles) -> None:
    files.write("a1", {"TOKEN": b"old", "GONE": b"x"}, None)
    folder = Path(files.write("a1", {"TOKEN": b"new"}, None))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"TOKEN": b"new"}


def test_they_are_removed_at_the_end_and_by_the_next_agent(
    files: SecretFiles, tmp_path: Path, memory: Path
) -> None:
    folders = [Path(files.write(name, VALUES, None)) for name in ("a1", "a2", "a3")]
    files.ended("a1")
    files.ended("never-written")
    assert [folder.exists() for folder in folders] == [False, True, True]
    again = SecretFiles(str(tmp_path), ["/nonexistent", str(memory)])
    again.ended("a2")
    assert folders[1].exists(), "it is not this one's to know"
    other = Path(SecretFiles(str(tmp_path / "other"), [str(memory)]).write("a9", VALUES, None))
    again.sweep(lambda name: name == "a3")
    assert [folder.exists() for folder in (*folders, other)] == [False, False, True, True]


def test_they_are_never_written_to_a_disk(tmp_path: Path) -> None:
    files = SecretFiles(str(tmp_path), [str(tmp_path), "/nonexistent"])
    with pytest.raises(NodeError, match=f"{tmp_path} is not in memory, /nonexistent is not in memory"):
        files.write("a1", VALUES, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trap", ["open", "link", "file"])
def test_a_folder_that_somebody_has_prepared_is_not_used(
    files: SecretFiles, memory: Path, tmp_path: Path, trap: str
) -> None:
    ours = memory / f"towline-secrets.{os.geteuid()}"
    if trap == "open":
        ours.mkdir()
        ours.chmod(0o777)
    elif trap == "link":
        (memory / "theirs").mkdir(mode=0o700)
        ours.symlink_to(memory / "theirs")
    else:
        ours.write_text("")
    with pytest.raises(NodeError, match="belongs to somebody else"):
        files.write("a1", VALUES, None)


def test_what_its_output_is_masked_in_goes_with_them(
    files: SecretFiles, tmp_path: Path, memory: Path
) -> None:
    folders = [files.write(name, VALUES, None) for name in ("a1", "a2", "a3")]
    outputs = [Path(secrets.output_folder(folder)) for folder in folders]
    for output in outputs:
        output.mkdir()
    files.ended("a1")
    SecretFiles(str(tmp_path), [str(memory)]).sweep(lambda name: name == "a3")
    assert [output.exists() for output in outputs] == [False, False, True]
