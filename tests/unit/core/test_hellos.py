"""What a node says of itself reaches its leader by any link, and not always in the order in which it was
said."""

from __future__ import annotations

import pytest
from msgspec import structs
from tests.unit.core.driver import Driver, node_row, task

from towline.core.commands import AttemptUpdate
from towline.core.rows import NodeRow
from towline.errors import Outdated


def said(at_ms: int, boot_id: str = "boot") -> NodeRow:
    return structs.replace(node_row(), boot_id=boot_id, said_ms=at_ms)


RUNS = AttemptUpdate(attempt="j1-0-0-1", state="running", started_at=5)


@pytest.mark.parametrize("reloaded", [False, True])
def test_what_was_said_before_takes_nothing_back(*, reloaded: bool) -> None:
    """On a link that the node has given up: it knew nothing then of what it runs now."""
    driver = Driver(said(100))
    driver.submit(a=task(on_disconnect="stop"))
    driver.join(said(200), RUNS)
    driver.starts()
    if reloaded:
        driver.reload()
    with pytest.raises(Outdated, match="another link"):
        driver.join(said(150))
    assert driver.starts() == []
    assert driver.element().state == "active"
    assert driver.exit("j1-0-0-1") == ("j1-0-0-1",)
    assert driver.job_row().state == "succeeded"


@pytest.mark.parametrize("row", [said(200), said(201), said(1, "after a reboot"), said(0)])
def test_what_may_be_news_is_taken(row: NodeRow) -> None:
    """Of another boot, or of an agent that does not tell when, nothing is known."""
    driver = Driver(said(200))
    driver.submit(a=task())
    driver.join(row, RUNS)
    assert driver.kinds()[-1] == "attempt.running"
