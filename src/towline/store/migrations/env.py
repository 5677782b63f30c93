"""Alembic's entrance: runs the revisions on the connection that ``upgrade.migrate`` hands over."""

from __future__ import annotations

from alembic import context

from towline.store.schema import metadata

# One transaction around everything: a process that dies here leaves the schema as it was.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
