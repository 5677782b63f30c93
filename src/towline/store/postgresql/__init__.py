"""The store on PostgreSQL, for several servers. Importing this imports SQLAlchemy and asyncpg: do it late."""

from towline.store.postgresql.store import PostgresStore

__all__ = ["PostgresStore"]
