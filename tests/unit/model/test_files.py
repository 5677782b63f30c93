"""Files as a user may name them: what is told of each, and what comes back of a good one."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

import pytest
from tests.unit.model.loading import job_text

from towline.errors import InvalidDocument
from towline.model.document import load_file, load_tree


def refusal(path, **overrides) -> str:
    with pytest.raises(InvalidDocument) as caught:
        load_file(path, overrides)
    assert caught.value.source == str(path)
    return str(caught.value)


def test_a_good_file_gives_spec_tree_and_folder(tmp_path, monkeypatch):
    text = job_text("env: {A: 08, B: yes, C: 1.50, D: true}\narray: [1, 02]\nlogs: {max_bytes: 1Ki}")
    (tmp_path / "job.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    loaded = load_file("job.yaml")
    assert loaded.base_dir == str(tmp_path)
    assert loaded.spec.tasks["a"].env == {"A": "08", "B": "yes", "C": "1.50", "D": "true"}
    assert loaded.tree["tasks"]["a"]["env"] == {"A": "08", "B": "yes", "C": "1.50", "D": "true"}
    assert loaded.tree["tasks"]["a"]["array"] == ["1", "02"]
    assert load_tree(loaded.tree) == loaded.spec


def test_the_tree_for_the_api_keeps_parameters_unreplaced(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(job_text("env: {Y: '{{params.year}}'}", "params: {year: 2013}\n"))
    loaded = load_file(path, {"year": "2014"})
    assert loaded.spec.tasks["a"].env == {"Y": "2014"}
    assert loaded.tree["params"] == {"year": 2013}
    assert loaded.tree["tasks"]["a"]["env"] == {"Y": "{{params.year}}"}
    assert load_tree(loaded.tree, {"year": "2014"}) == loaded.spec


def test_a_missing_file(tmp_path):
    assert refusal(tmp_path / "no.yaml") == "there is no such file (`tow init` writes an example)"
    assert refusal(tmp_path / ("x" * 300)) == "cannot be read: File name too long"


def test_a_folder(tmp_path):
    assert refusal(tmp_path).startswith("is a folder (name the file in it, such as ")


def test_a_path_with_nul():
    with pytest.raises(InvalidDocument, match="cannot be read"):
        load_file("a\0b")


@contextmanager
def as_nobody(folder):
    """Root may read everything, so it becomes somebody else meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    for each in (folder, *folder.parents[:-2]):
        each.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: x")
    path.chmod(0)
    with as_nobody(tmp_path):
        assert refusal(path) == "you may not read it (change its permissions)"


def test_empty_and_blank_files(tmp_path):
    path = tmp_path / "job.yaml"
    for content in (b"", b"\n\n", b"# comment\n", b"--- ~\n"):
        path.write_bytes(content)
        assert refusal(path) == "is empty (`tow init` writes an example)"


def test_a_list_and_a_text(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("- name: x\n")
    assert refusal(path).startswith("is a list, not a mapping with name and tasks")
    path.write_text("hello there\n")
    assert refusal(path).startswith("is a text, not a mapping with name and tasks")


def test_a_file_over_5_mib(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_bytes(b"#" * (5 * 1024**2) + b"\n")
    assert refusal(path).startswith("is over 5 MiB")
    path.write_bytes(b"#" * (5 * 1024**2))
    assert refusal(path).startswith("is empty")


def test_an_endless_device_is_left_alone_after_5_mib():
    assert refusal("/dev/zero").startswith("is over 5 MiB")


def test_a_pipe_is_read(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_text, args=(job_text(""),))
    writer.start()
    assert load_file(fifo).spec.name == "job"
    writer.join()


def test_doubles_and_other_problems_are_told_together(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(job_text("comand: x\ntimeout: 1s\ntimeout: 2s\ngrace: never"))
    lines = refusal(path).splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["line 6", "line 8", "line 9"]
    assert "tasks.a.timeout: stands twice, first in line 7" in lines[1]


def test_json_files_have_lines_too(tmp_path):
    path = tmp_path / "job.json"
    path.write_text('{"name": "job",\n "tasks": {"a": {\n  "image": "oci:x", "comand": []}}}')
    assert refusal(path) == "line 3: tasks.a.comand: task has no field 'comand' (did you mean 'command'?)"
    path.write_text('{"name": "job", "labels": {"x": "\\ud83d\\ude00"}, "tasks": {"a": {"image": "oci:x"}}}')
    assert load_file(path).spec.labels == {"x": "😀"}
