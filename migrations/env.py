"""How Alembic runs a migration: on the connection it is handed, in one transaction on PostgreSQL and SQLite alike."""

from alembic import context

from taskyard.database.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
