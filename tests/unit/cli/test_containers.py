"""What tow doctor says of the ways to run containers."""

from __future__ import annotations

from towline.cli.containers import lines_of, problems_of


def test_without_any_way_it_says_what_to_do() -> None:
    problems = problems_of({"process": None, "oci": "no crun", "docker": "no socket"})
    assert problems[:2] == ["Runtime oci: no crun", "Runtime docker: no socket"]
    assert problems[2].startswith("Nothing can run containers here")
    assert "podman" in problems[2]
    assert "runtime: process" in problems[2]


def test_one_way_is_enough() -> None:
    assert problems_of({"process": None, "oci": None, "docker": "no socket"}) == []
    assert problems_of({"process": None, "oci": None, "docker": None}) == []
    assert problems_of({"process": "broken", "oci": None, "docker": None}) == ["Runtime process: broken"]


def test_an_engine_is_shown_with_its_place_and_what_it_lacks() -> None:
    engine = {
        "problem": None, "protects": ["seccomp", "memory"], "lacks": {"disk": "no quotas"}, "kind": "Podman",
        "version": "Podman 4.3.1", "url": "unix:///run/podman/podman.sock",
    }  # fmt: skip
    assert lines_of("docker", engine) == [
        "Podman 4.3.1 at unix:///run/podman/podman.sock",
        "protects by seccomp, memory",
        "has no disk: no quotas",
    ]
    assert lines_of("docker", {"problem": "no socket", "protects": [], "lacks": {}}) == ["no socket"]
    assert lines_of("crun", {"problem": "not there", "protects": [], "lacks": {}}) == []
