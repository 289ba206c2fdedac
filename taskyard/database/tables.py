"""Where the library's tables are declared: a MetaData and a registry of their own, names with a prefix."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import MetaData, event
from sqlalchemy.orm import Mapper, registry
from sqlmodel import SQLModel

from taskyard.settings.loading import current_settings

PREFIX = "taskyard_"
METADATA = MetaData()


class TaskyardTable(SQLModel, registry=registry(metadata=METADATA)):
    """Base of the library's tables; those of an app are in another MetaData and never collide with them."""


@event.listens_for(Mapper, "before_configured")
def use_schema() -> None:
    """
    Put the tables into the schema that TASKYARD_SCHEMA names, before the first statement is made.

    They carry it, so that an app's own session and engine find them, whatever its search path is.
    """
    for table in METADATA.tables.values():
        table.schema = current_settings().taskyard_schema


@contextmanager
def without_schema() -> Iterator[None]:
    """Compare and migrate on the search path, as the revisions are written."""
    before = {table: table.schema for table in METADATA.tables.values()}
    try:
        for table in before:
            table.schema = None
        yield
    finally:
        for table, schema in before.items():
            table.schema = schema
