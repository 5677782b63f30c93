"""The stores that the suite runs on: a new store adds a line here and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests import postgres

from towline.store.memory import MemoryStore
from towline.store.port import Store
from towline.store.postgresql import PostgresStore
from towline.store.sqlite import SqliteStore

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "state.db"),
    "postgresql": lambda folder: PostgresStore(postgres.shared().own(folder)),
}
"""By name, what makes a store that keeps its things in a folder (or that keeps them elsewhere, empty)."""

DURABLE = [name for name in STORES if name != "memory"]
"""Those that have everything still when they are opened again."""
