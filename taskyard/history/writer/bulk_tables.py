"""
Bulk reads and upserts of runs and attempts: many rows per statement, in the driver's own types.

The writer shares the CPU with tasks at thousands of rows a second; SQLAlchemy's typed statements take several times as
much, mostly to convert single values.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Protocol

from sqlalchemy import JSON, Connection

from taskyard.broker.protocol.json_codec import dump, load
from taskyard.database.columns import UtcDateTime
from taskyard.history.models import Attempt, Run
from taskyard.history.writer.run_rows import AttemptRow, RunRow


class TableShape[R]:
    """Statements for one table."""

    def __init__(self, model: type, row: type[R]) -> None:
        """`row` is the plain class with the columns of `model`."""
        columns: Any = model.__table__.columns  # type: ignore[attr-defined]  # SQLModel sets it on table models
        table = columns[0].table.fullname
        self.names = tuple(column.name for column in columns)
        key = [column.name for column in columns if column.primary_key]
        listed = ", ".join(self.names)
        changes = ", ".join(f"{name} = excluded.{name}" for name in self.names if name not in key)
        self.read = f"SELECT {listed} FROM {table}"  # noqa: S608 - names of ours
        self.upsert = (  # {source} yields the rows
            f"INSERT INTO {table} ({listed}) {{source}} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
        )
        self.from_json = f"SELECT {listed} FROM json_populate_recordset(NULL::{table}, %s::json)"  # noqa: S608 - as above
        self.from_values = f"VALUES ({', '.join('?' * len(self.names))})"
        self.row: Callable[..., R] = row  # takes the values by position
        self.values_of = attrgetter(*self.names)
        self.moments = [place for place, column in enumerate(columns) if isinstance(column.type, UtcDateTime)]
        self.documents = [place for place, column in enumerate(columns) if isinstance(column.type, JSON)]


RUNS = TableShape(Run, RunRow)
ATTEMPTS = TableShape(Attempt, AttemptRow)


class BulkTables(Protocol):
    """Both tables in one transaction."""

    def runs(self, ids: Sequence[str]) -> Iterable[RunRow]:
        """Return the existing runs of these ids."""

    def attempts(self, ids: Sequence[str], first: int, last: int) -> Iterable[AttemptRow]:
        """Return the attempts of these runs with numbers from `first` to `last`, inclusive."""

    def put[R](self, shape: TableShape[R], rows: Iterable[R]) -> None:
        """Insert or replace the rows."""


def tables_of(connection: Connection) -> BulkTables:
    """Return the tables in the transaction of a connection."""
    return PostgresBulkTables(connection) if connection.dialect.name == "postgresql" else SqliteBulkTables(connection)


@dataclass(frozen=True, slots=True)
class PostgresBulkTables:
    """Sends all rows as one JSON text that the server unpacks."""

    connection: Connection

    def runs(self, ids: Sequence[str]) -> Iterable[RunRow]:
        """Return the existing runs of these ids."""
        found = self.connection.exec_driver_sql(f"{RUNS.read} WHERE id = ANY(%s)", (list(ids),))
        return [RUNS.row(*row) for row in found]

    def attempts(self, ids: Sequence[str], first: int, last: int) -> Iterable[AttemptRow]:
        """Return the attempts of these runs with numbers from `first` to `last`, inclusive."""
        query = f"{ATTEMPTS.read} WHERE run_id = ANY(%s) AND number BETWEEN %s AND %s"
        found = self.connection.exec_driver_sql(query, (list(ids), first, last))
        return [ATTEMPTS.row(*row) for row in found]

    def put[R](self, shape: TableShape[R], rows: Iterable[R]) -> None:
        """Insert or replace the rows."""
        objects = [dict(zip(shape.names, shape.values_of(row), strict=True)) for row in rows]
        if objects:
            text = dump(objects)
            self.connection.exec_driver_sql(shape.upsert.format(source=shape.from_json), (text,))


@dataclass(frozen=True, slots=True)
class SqliteBulkTables:
    """Sends rows as tuples to one prepared statement; times and JSON are text there."""

    connection: Connection

    def runs(self, ids: Sequence[str]) -> Iterable[RunRow]:
        """Return the existing runs of these ids."""
        return self._read(RUNS, "WHERE id IN (SELECT value FROM json_each(?))", dump(list(ids)))

    def attempts(self, ids: Sequence[str], first: int, last: int) -> Iterable[AttemptRow]:
        """Return the attempts of these runs with numbers from `first` to `last`, inclusive."""
        where = "WHERE run_id IN (SELECT value FROM json_each(?)) AND number BETWEEN ? AND ?"
        return self._read(ATTEMPTS, where, dump(list(ids)), first, last)

    def put[R](self, shape: TableShape[R], rows: Iterable[R]) -> None:
        """Insert or replace the rows."""
        values = [_to_sqlite(shape, row) for row in rows]
        if values:
            self.connection.exec_driver_sql(shape.upsert.format(source=shape.from_values), values)

    def _read[R](self, shape: TableShape[R], where: str, *values: Any) -> Iterator[R]:
        for row in self.connection.exec_driver_sql(f"{shape.read} {where}", values):
            facts = list(row)
            for place in shape.moments:
                if facts[place] is not None:
                    facts[place] = datetime.fromisoformat(facts[place]).replace(tzinfo=UTC)
            for place in shape.documents:
                if facts[place] is not None:
                    facts[place] = load(facts[place])
            yield shape.row(*facts)


def _to_sqlite(shape: TableShape[Any], row: Any) -> tuple[Any, ...]:
    """Return the values of a row, times in the format of :class:`UtcDateTime`."""
    facts = list(shape.values_of(row))
    for place in shape.moments:
        if facts[place] is not None:
            facts[place] = facts[place].astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    for place in shape.documents:
        if facts[place] is not None:
            facts[place] = dump(facts[place])
    return tuple(facts)
