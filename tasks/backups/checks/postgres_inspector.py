"""Read-only queries on a restored PostgreSQL database."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import LiteralString

import psycopg
from psycopg import sql

from tasks.backups.checks.database_inspector import ColumnValue, QueryError
from tasks.backups.errors import InfrastructureError
from tasks.backups.restore.scratch_database import ScratchDatabase

_TABLES: LiteralString = (
    "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND {ours}"
)
_CONSTRAINTS: LiteralString = (
    "SELECT n.nspname || '.' || c.relname || '.' || k.conname FROM pg_constraint k"
    " JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE k.contype IN ('p', 'f', 'u', 'c', 'x') AND k.convalidated AND {ours}"
)
_INDEXES: LiteralString = (
    "SELECT n.nspname || '.' || c.relname || '.' || i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid"
    " JOIN pg_class c ON c.oid = x.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE x.indisvalid AND {ours}"
)
_OURS: LiteralString = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'"


@contextmanager
def inspect_postgres(scratch: ScratchDatabase, limit: timedelta) -> Iterator["PostgresInspector"]:
    """
    Open an inspector; every query has ``limit``, and none can write.

    Raises:
        InfrastructureError: The scratch database cannot be reached.
    """
    with scratch.connect() as connection:
        milliseconds = max(1, round(limit / timedelta(milliseconds=1)))
        connection.execute("SELECT set_config('statement_timeout', %s, false)", [str(milliseconds)])
        connection.execute("SET default_transaction_read_only = on")
        yield PostgresInspector(connection, limit)


class PostgresInspector:
    """See :class:`tasks.backups.checks.database_inspector.DatabaseInspector`."""

    def __init__(self, connection: psycopg.Connection, limit: timedelta) -> None:
        self._connection = connection
        self._limit = limit

    def tables(self) -> list[str]:
        """Return ``schema.table`` of each, partitioned ones and their parts too."""
        return self._names(_TABLES)

    def full_name(self, table: str) -> str:
        """Return ``schema.table``; a name without a schema is one of ``public``."""
        return table if "." in table else f"public.{table}"

    def count(self, table: str) -> int:
        """Return the number of rows, counted."""
        return int(str(self._one(sql.SQL("SELECT count(*) FROM {}").format(self._table(table)))))

    def newest(self, table: str, column: str) -> ColumnValue:
        """Return ``max(column)``."""
        return self._one(sql.SQL("SELECT max({}) FROM {}").format(sql.Identifier(column), self._table(table)))

    def revision(self, table: str, column: str) -> list[str]:
        """Return the column's values as text, sorted."""
        query = sql.SQL("SELECT {}::text FROM {} ORDER BY 1").format(sql.Identifier(column), self._table(table))
        return [str(value) for (value,) in self._all(query)]

    def constraints(self) -> list[str]:
        """Return ``schema.table.constraint``; those that were never validated do not count."""
        return self._names(_CONSTRAINTS)

    def indexes(self) -> list[str]:
        """Return ``schema.table.index``."""
        return self._names(_INDEXES)

    def scalar(self, statement: str) -> ColumnValue:
        """Return the value; a second statement, row or column is refused."""
        rows = self._all(statement.encode())
        if len(rows) != 1 or len(rows[0]) != 1:
            raise QueryError(f"{len(rows)} rows; an assertion answers one row with one column")
        return rows[0][0]

    def _table(self, table: str) -> sql.Composed:
        return sql.SQL(".").join(sql.Identifier(part) for part in self.full_name(table).split(".", 1))

    def _names(self, query: LiteralString) -> list[str]:
        return sorted(str(name) for (name,) in self._all(sql.SQL(query).format(ours=sql.SQL(_OURS))))

    def _one(self, query: sql.Composed) -> ColumnValue:
        return self._all(query)[0][0]

    def _all(self, query: sql.Composed | bytes) -> Sequence[tuple[ColumnValue, ...]]:
        try:  # prepared: the protocol then takes a single statement
            rows: Sequence[tuple[ColumnValue, ...]] = self._connection.execute(query, prepare=True).fetchall()
        except psycopg.errors.QueryCanceled as error:
            raise QueryError(f"no answer within {self._limit.total_seconds():g} s") from error
        except psycopg.OperationalError as error:
            raise InfrastructureError(f"the scratch server failed: {str(error).splitlines()[0]}") from error
        except psycopg.Error as error:
            raise QueryError(str(error.diag.message_primary or error).splitlines()[0]) from error
        return rows
