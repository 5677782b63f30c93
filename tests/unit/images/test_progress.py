"""How far a pull by skopeo is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from towline.images.failures import ImageFailed, not_found
from towline.images.fetch import layer_sizes
from towline.images.layout import native_architecture, native_digest
from towline.images.progress import UNPACKING, Progress, shown

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def test_layers_that_are_here_before_are_not_to_come(tmp_path: Path) -> None:
    (tmp_path / "sha256").mkdir()
    (tmp_path / A.replace(":", "/")).touch()
    progress, under_way = Progress("x:1"), 30
    progress.arrived = lambda: under_way
    assert str(progress).startswith("pulling: 0.0 MiB")
    progress.expect({A: 1000, B: 100, C: 50}, tmp_path)
    assert (progress.arrived(), progress.total_bytes) == (30, 150)
    (tmp_path / B.replace(":", "/")).touch()
    assert progress.arrived() == 130
    (tmp_path / C.replace(":", "/")).touch()
    assert progress.arrived() == 150, "never more than there is"


def test_a_failure_tells_what_was_tried_and_nobody_looks_at_it_any_more() -> None:
    pulls: dict[str, Progress] = {}
    progress = Progress("x:1", A)
    with pytest.raises(ImageFailed) as caught, shown(pulls, progress):
        assert pulls == {"x:1": progress}
        progress.enter(UNPACKING)
        progress.enter(UNPACKING)
        raise not_found("it is gone")
    assert pulls == {}
    assert [text for _, text in caught.value.tried] == [f"pulling: x:1 ({A})", f"unpacking: x:1 ({A})"]
    first, second = (at_ms for at_ms, _ in caught.value.tried)
    assert 1_700_000_000_000 < first <= second


def test_sizes_are_read_from_manifests_and_native_ones_from_indexes() -> None:
    manifest = {"layers": [{"digest": A, "size": 5}, {"digest": "../../etc", "size": 7}]}
    assert layer_sizes(json.dumps(manifest).encode()) == {A: 5}
    foreign = {"digest": A, "size": 1, "platform": {"architecture": "z80", "os": "linux"}}
    ours = {"digest": B, "size": 1, "platform": {"architecture": native_architecture(), "os": "linux"}}
    index = json.dumps({"manifests": [foreign, ours]}).encode()
    assert (layer_sizes(index), native_digest(index)) == (None, B)
    assert native_digest(json.dumps({"manifests": [foreign]}).encode()) is None
    for broken in (b"", b"[]", b'{"layers": 3}', b'{"manifests": 3}'):
        assert (layer_sizes(broken), native_digest(broken)) == (None, None)
