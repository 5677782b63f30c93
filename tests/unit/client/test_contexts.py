"""The file of contexts, which several commands may write at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from towline.client.cluster.contexts import Contexts, chosen, contexts_file
from towline.client.cluster.remote import Remote
from towline.errors import NotFound, RequestError


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


def test_a_token_beside_a_context_is_refused(tmp_path: Path) -> None:
    """It would be sent to a server that it may not be for, or not be used."""
    environ = {"XDG_CONFIG_HOME": str(tmp_path), "TOWLINE_TOKEN": "tow_x"}
    assert chosen(environ) is None
    Contexts(contexts_file(environ)).add("lab", remote("lab"))
    with pytest.raises(RequestError, match=r"TOWLINE_TOKEN is set, but TOWLINE_SERVER is not, .* 'lab'"):
        chosen(environ)
    assert chosen({**environ, "TOWLINE_CONTEXT": "local"}) is None
    assert chosen({"XDG_CONFIG_HOME": str(tmp_path)}) == remote("lab")
