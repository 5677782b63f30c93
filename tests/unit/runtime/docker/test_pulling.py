"""How far an Engine's pull is, from what it says."""

from __future__ import annotations

from towline.runtime.docker.pulling import Layers


def said(layer: str, status: str, current: int | None = None, total: int | None = None) -> dict[str, object]:
    detail = {} if current is None else {"current": current, "total": total}
    return {"id": layer, "status": status, "progressDetail": detail}


def test_layers_count_from_the_first_byte_to_the_last() -> None:
    layers = Layers()
    assert (layers.arrived_bytes, layers.total_bytes, layers.step) == (0, None, "pulling")
    layers.hear({"status": "Pulling from library/x", "id": ""})
    layers.hear(said("old", "Already exists"))
    layers.hear(said("a", "Pulling fs layer"))
    layers.hear(said("b", "Waiting"))
    layers.hear(said("a", "Downloading", 10, 100))
    assert (layers.arrived_bytes, layers.total_bytes) == (10, None), "the size of b is not known yet"
    layers.hear(said("b", "Downloading", 5, 50))
    assert (layers.arrived_bytes, layers.total_bytes) == (15, 150)
    layers.hear(said("a", "Download complete"))
    assert (layers.arrived_bytes, layers.step) == (105, "pulling")
    layers.hear(said("b", "Download complete"))
    layers.hear(said("a", "Extracting", 3, 100))
    assert (layers.arrived_bytes, layers.total_bytes, layers.step) == (150, 150, "unpacking")


def test_what_is_none_of_these_changes_nothing() -> None:
    layers = Layers()
    layers.hear({"stream": "Trying to pull x\n"})
    layers.hear(said("a", "Retrying in 5 seconds"))
    assert (layers.arrived_bytes, layers.total_bytes) == (0, None)
