"""Schema history of the database (Alembic)."""
