"""How far an Engine's pull has come, from the steps that it tells of."""

from __future__ import annotations

from typing import Any

from towline.model.pulls import PULLING, UNPACKING

_BEGUN = ("Pulling fs layer", "Waiting")
_HERE = ("Download complete", "Verifying Checksum", "Extracting", "Pull complete")


class Layers:
    """``hear`` takes a step of ``POST /images/create``: ``status``, and of a layer ``id`` and
    ``progressDetail``. A layer's size is known once it is being sent."""

    def __init__(self) -> None:
        self._arrived: dict[str, int] = {}
        self._sizes: dict[str, int | None] = {}
        self._here: set[str] = set()

    def hear(self, step: dict[str, Any]) -> None:
        layer, status = str(step.get("id") or ""), str(step.get("status") or "")
        detail: dict[str, Any] = step.get("progressDetail") or {}
        if not layer:
            return
        if status == "Downloading":
            self._arrived[layer] = int(detail.get("current") or 0)
            self._sizes[layer] = int(detail.get("total") or 0) or self._sizes.get(layer)
        elif status in _BEGUN:
            self._sizes.setdefault(layer, None)
        elif status in _HERE:
            self._sizes[layer] = self._sizes.get(layer) or self._arrived.get(layer, 0)
            self._arrived[layer] = self._sizes[layer] or 0
            self._here.add(layer)

    @property
    def arrived_bytes(self) -> int:
        return sum(self._arrived.values())

    @property
    def total_bytes(self) -> int | None:
        """None until the size of every layer that is missing has been told."""
        known = [size for size in self._sizes.values() if size is not None]
        return sum(known) if known and len(known) == len(self._sizes) else None

    @property
    def step(self) -> str:
        """PULLING, or UNPACKING once everything is here."""
        return UNPACKING if self._sizes and self._here >= self._sizes.keys() else PULLING
