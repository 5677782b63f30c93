"""The store in a SQLite file. Importing this imports SQLAlchemy (0.2 s): do it where a store is opened."""

from towline.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
