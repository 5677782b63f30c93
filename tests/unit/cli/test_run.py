"""What the arguments of ``tow run`` mean, and the job that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from towline.cli import run
from towline.cli.arguments import overrides
from towline.errors import InvalidDocument, RequestError

NOTHING: dict[str, Any] = dict.fromkeys(("cpu", "memory", "mount", "env", "timeout", "runtime", "name"))


@pytest.mark.parametrize(
    ("target", "command", "file"),
    [
        ("job.yaml", None, True),
        ("missing.yml", None, True),
        ("job.json", None, True),
        ("exists", None, True),
        ("oci:./busybox:1", ["echo"], False),
        ("oci:./busybox:1", None, False),
        ("exists", ["echo"], False),
        (None, ["true"], False),
    ],
)
def test_file_or_image(
    target: str | None, command: list[str] | None, file: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exists").touch()
    monkeypatch.chdir(tmp_path)
    assert run.is_file(target, command) is file


@pytest.mark.parametrize(
    ("target", "message"), [(None, "Name a job file"), ("nope", "'nope' is no file here.*tow run nope --")]
)
def test_neither_file_nor_image(target: str | None, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        run.is_file(target, None)


@pytest.mark.parametrize("file", ["k.yaml", "k.yml", "./k.json"])
def test_a_job_file_takes_no_command(file: str) -> None:
    with pytest.raises(RequestError, match=f"{file} is a job file.*leave out `--`"):
        run.is_file(file, ["echo"])


def test_command_becomes_a_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANG", "C")
    settings = NOTHING | {
        "cpu": "0.5",
        "memory": "64Mi",
        "mount": ["./data:/data:ro", "/tmp:/t"],
        "env": ["A=1=2", "LANG", "B={{x}}"],
        "timeout": "2m",
    }
    sent = run._of_command("oci:./busybox:1", ["/bin/echo", "{{index}}"], settings, None)
    assert sent.base_dir == str(tmp_path)
    assert sent.document == {
        "name": "echo",
        "tasks": {
            "main": {
                "image": "oci:./busybox:1",
                "timeout": "2m",
                "command": ["/bin/echo", "{{{{index}}"],
                "resources": {"cpu": "0.5", "memory": "64Mi"},
                "mounts": [
                    {"source": "./data", "target": "/data", "readonly": True},
                    {"source": "/tmp", "target": "/t", "readonly": False},
                ],
                "env": {"A": "1=2", "LANG": "C", "B": "{{{{x}}"},
            }
        },
    }


@pytest.mark.parametrize(
    ("command", "image", "name"),
    [
        (["/usr/bin/make", "test"], None, "make"),
        (["./a b$c.sh"], None, "a-b-c.sh"),
        (["…"], None, "run"),
        (["x" * 100], None, "x" * 63),
        (None, "oci:./images/busybox:1.36", "busybox"),
    ],
)
def test_names_that_were_not_given(command: list[str] | None, image: str | None, name: str) -> None:
    assert run._name(command, image) == name


@pytest.mark.parametrize("mount", ["a", "a:", ":b", "a:b:rox", ""])
def test_bad_mounts_are_refused(mount: str) -> None:
    with pytest.raises(RequestError, match="--mount"):
        run._mount(mount)


@pytest.mark.parametrize("variable", ["", "=x", "NOT_SET_ANYWHERE"])
def test_bad_variables_are_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)
    with pytest.raises(RequestError, match="--env"):
        run._variable(variable)


@pytest.mark.parametrize(("field", "value"), [("cpu", "0"), ("memory", "64 XB"), ("timeout", "soon")])
def test_bad_settings_name_their_field(field: str, value: str) -> None:
    settings = NOTHING | {"runtime": "process", field: value}
    with pytest.raises(InvalidDocument, match=field):
        run._of_command(None, ["true"], settings, None)


def test_settings_of_images_are_refused_with_a_file() -> None:
    with pytest.raises(RequestError, match=r"--cpu, --env are for a command.*write them into job\.yaml"):
        run._of_file("job.yaml", NOTHING | {"cpu": "1", "env": ["A=1"]}, None)


def test_parameters_are_texts_that_the_job_file_types() -> None:
    assert overrides(["year=2014", "name=a=b", "empty="]) == {"year": "2014", "name": "a=b", "empty": ""}
    for bad in ("year", "=1"):
        with pytest.raises(RequestError, match="NAME=VALUE"):
            overrides([bad])
