"""Where the library's tables are declared: a MetaData and a registry of their own, names with a prefix."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import SQLModel

PREFIX = "taskyard_"
METADATA = MetaData()


class TaskyardTable(SQLModel, registry=registry(metadata=METADATA)):
    """Base of the library's tables; those of an app are in another MetaData and never collide with them."""


def use_schema(schema: str | None) -> None:
    """
    Say in which PostgreSQL schema the library's tables are; None: where the connection's search path leads.

    The tables carry it, so that an app's own session and engine find them. Called when the settings are read, before
    the first statement.
    """
    for table in METADATA.tables.values():
        table.schema = schema


@contextmanager
def without_schema() -> Iterator[None]:
    """Compare and migrate on the search path, as the revisions are written."""
    before = {table: table.schema for table in METADATA.tables.values()}
    use_schema(None)
    try:
        yield
    finally:
        for table, schema in before.items():
            table.schema = schema
