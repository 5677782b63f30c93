"""How a job shows what has become of its webhooks."""

from __future__ import annotations

from towline.cli.jobs import _delivery
from towline.model.views import DeliveryView


def test_a_webhook_says_how_it_stands_and_why() -> None:
    view = DeliveryView(
        webhook="https://h/x", outcome="failed", state="pending", attempts=2,
        at="2026-01-31T12:00:00.000Z", message="it answers with status 500",
    )  # fmt: skip
    shown = _delivery(view)
    assert shown.startswith("https://h/x: failed; pending after 2 attempts, next at ")
    assert shown.endswith(": it answers with status 500")
    view = DeliveryView(
        webhook="https://h/x", outcome="failed", state="delivered", attempts=1, at="2026-01-31T12:00:00.000Z"
    )
    assert "delivered after 1 attempt, at " in _delivery(view)
