"""Alembic's entrance: runs the revisions on the connection that ``upgrade.migrate`` hands over, or writes
them down as SQL for ``upgrade.script``."""

from __future__ import annotations

from alembic import context

from towline.store.schema import metadata

given = context.config.attributes
if context.is_offline_mode():
    # Whoever runs the script opens the transaction.
    context.configure(
        dialect_name="postgresql", output_buffer=given["script"], literal_binds=True, target_metadata=metadata
    )
    context.run_migrations()
else:
    # One transaction around everything: a process that dies here leaves the schema as it was.
    context.configure(connection=given["connection"], target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
