"""The file of contexts, which several commands may write at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from towline.client.cluster.contexts import Contexts
from towline.client.cluster.remote import Remote
from towline.errors import NotFound


def remote(name: str) -> Remote:
    return Remote(url=f"https://{name}:7443", token="tow_x", authority="PEM")


def test_nobody_undoes_what_another_has_written(tmp_path: Path) -> None:
    file = tmp_path / "towline" / "contexts.json"
    before = [Contexts(file) for _ in range(20)]  # all have read the file before the first one writes

    def add(number: int) -> None:
        before[number].add(f"c{number}", remote(f"h{number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(20)))
    assert len(Contexts(file).names) == 20
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_another_has_removed_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "contexts.json"
    Contexts(file).add("lab", remote("lab"))
    late = Contexts(file)
    Contexts(file).remove("lab")
    with pytest.raises(NotFound):
        late.use("lab")
    assert Contexts(file).current is None
