"""How nodes are told apart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from towline.cli.doctor import _told_apart
from towline.model.views import NodeView


def test_nodes_of_one_name_are_shown_with_their_ids() -> None:
    views = [SimpleNamespace(id=f"node-{n}", name=name) for n, name in enumerate(["a", "b", "a"])]
    assert _told_apart(cast("list[NodeView]", views)) == {
        "node-0": "a (node-0)",
        "node-1": "b",
        "node-2": "a (node-2)",
    }
