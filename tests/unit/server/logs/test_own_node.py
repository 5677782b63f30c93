from __future__ import annotations

from pathlib import Path

from towline.server.logs.own_node import OwnNode


def test_only_what_is_of_the_jobs_goes(tmp_path: Path) -> None:
    for name in (
        "output/gone-0-0-1",
        "output/gone-1-7-2",
        "output/kept-0-0-1",
        "artifacts/gone/0/0",
        "artifacts/kept",
    ):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "stdout").write_bytes(b"12345")
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    (tmp_path / "artifacts" / "gone" / "link").symlink_to(outside)
    node = OwnNode(tmp_path)
    size = node.size_of(["gone", "never"])
    assert size.output == 10
    assert sum(size) >= 15
    assert node.drop(["gone", "never"]) == size
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*"))
    assert left == ["artifacts/kept", "output/kept-0-0-1"]
    assert outside.read_text() == "not ours"
    assert node.drop(["gone"]) == (0, 0)


def test_a_node_that_has_never_run_has_nothing(tmp_path: Path) -> None:
    assert OwnNode(tmp_path / "none").size_of(["a"]) == (0, 0)
    assert OwnNode(tmp_path / "none").drop(["a"]) == (0, 0)
