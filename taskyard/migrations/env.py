"""How Alembic runs a migration: on the connection it is handed, in one transaction on PostgreSQL and SQLite alike."""

from typing import Any, Literal

from alembic import context
from sqlmodel.sql.sqltypes import AutoString

from taskyard.database.columns import UtcDateTime


def plain_type(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    """Write a revision with SQLAlchemy's own types: it must mean the same when ours have changed."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String({item.length or ''})"
    return False


given = context.config.attributes
context.configure(
    connection=given["connection"],
    target_metadata=given["metadata"],
    version_table=given["version_table"],
    include_object=given["include_object"],
    render_item=plain_type,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
