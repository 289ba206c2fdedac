"""The queries that checks run on a restored database, as a Protocol."""

from typing import Protocol

type ColumnValue = object  # whatever one column can hold; None for NULL


class QueryError(Exception):
    """The database refused a query or took too long for it; the text is one line."""


class DatabaseInspector(Protocol):
    """Read-only queries on a restored database, each within the profile's timeout."""

    def tables(self) -> list[str]:
        """Return all tables, each by its full name, sorted."""

    def full_name(self, table: str) -> str:
        """Return a table's name as :meth:`tables` writes it."""

    def count(self, table: str) -> int:
        """Return how many rows the table has."""

    def newest(self, table: str, column: str) -> ColumnValue:
        """Return the greatest value of a column; None for an empty table."""

    def revision(self, table: str, column: str) -> list[str]:
        """Return the values of the column that holds the schema's revision."""

    def constraints(self) -> list[str]:
        """Return ``table.name`` of primary and foreign keys, unique, check and exclusion constraints, sorted."""

    def indexes(self) -> list[str]:
        """Return ``table.name`` of all indexes, sorted."""

    def scalar(self, statement: str) -> ColumnValue:
        """Return the one value that a statement answers."""
