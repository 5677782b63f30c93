"""Policies as files describe them, and by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from towline.errors import InvalidDocument
from towline.simulation.described.policies import (
    Setup,
    named,
    order_names,
    parents_first,
    placement_names,
    read_policies,
)


def test_names_are_orders_or_placements() -> None:
    easy, fgd = named(["easy", "fgd", "easy"])
    assert (easy.order, easy.placement) == ("easy", "headroom")
    assert (fgd.order, fgd.placement) == ("slowdown", "fgd")
    for name in [*order_names(), *placement_names()]:
        (setup,) = named([name])
        rules = setup.rules([])
        assert name in (rules.order.name, rules.policy.name) or name in placement_names()
    with pytest.raises(InvalidDocument, match=r"'eesy' \(did you mean 'easy'\? there are slowdown, "):
        named(["eesy"])


def test_a_file_gives_order_placement_and_queues(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(
        "policies:\n"
        "  today: {}\n"
        "  shares:\n"
        "    order: easy\n"
        "    placement: best-fit\n"
        "    usage_half_life: 12h\n"
        "    queues:\n"
        "      night: {parent: research, max: {gpu: 1.5, memory: 8Gi}, max_active: 10}\n"
        "      research: {weight: 3, guaranteed: {cpu: 4}}\n"
    )
    today, shares = read_policies(path)
    assert today == Setup("today")
    assert (shares.order, shares.placement, shares.half_life_ms) == ("easy", "best-fit", 12 * 3_600_000)
    research, night = shares.queues
    assert (research.name, research.weight_milli, research.guaranteed) == ("research", 3000, {"cpu": 4000})
    assert (night.parent, night.maximum) == ("research", {"memory": 8 * 2**30, "gpu": 1500})
    assert night.max_active == 10


def test_all_problems_are_told_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(
        "policies:\n"
        "  a: {order: esy, placement: fdg}\n"
        "  b: {plugins: [missing]}\n"
        "  c: {queues: {q: {weight: 0, wait: 1}}}\n"
    )
    with pytest.raises(InvalidDocument) as found:
        read_policies(path)
    told = [(problem.line, problem.where) for problem in found.value.problems]
    assert told == [
        (2, "policies.a.order"),
        (2, "policies.a.placement"),
        (3, "policies.b"),
        (4, "policies.c.queues.q.wait"),
        (4, "policies.c.queues.q.weight"),
    ]
    assert "did you mean 'easy'?" in str(found.value) and "'missing'" in str(found.value)


def test_parents_come_first_and_circles_end() -> None:
    assert parents_first({"c": "b", "b": "a", "a": None, "d": "x"}) == ["a", "b", "c", "d"]
    assert sorted(parents_first({"a": "b", "b": "a"})) == ["a", "b"]
