"""
The tables of runs and attempts as the writer uses them: many rows in one statement, in the driver's own terms.

Thousands of rows a second go this way, beside tasks that want the same processor; SQLAlchemy's typed statements take
several times as much of it, most of that to convert values one by one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Protocol

from sqlalchemy import Connection

from taskyard.broker.protocol.json_codec import dump, load
from taskyard.history.writer.run_rows import AttemptRow, RunRow


class Shape[R]:
    """A table, and the class of its rows: the same names in the same order."""

    def __init__(self, table: str, row: type[R], key: tuple[str, ...], moments: set[str], documents: set[str]) -> None:
        """`moments` and `documents` are the columns that hold a point in time or JSON."""
        self.row = row
        names = [field.name for field in fields(row)]  # type: ignore[arg-type]  # a dataclass
        columns = ", ".join(names)
        changes = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key)
        self.read = f"SELECT {columns} FROM {table}"  # noqa: S608 - names of ours
        self.upsert = (  # {source} yields the rows
            f"INSERT INTO {table} ({columns}) {{source}} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {changes}"
        )
        self.from_json = f"SELECT {columns} FROM json_populate_recordset(NULL::{table}, %s::json)"  # noqa: S608 - as above
        self.from_values = f"VALUES ({', '.join('?' * len(names))})"
        self.names = tuple(names)
        self.values_of = attrgetter(*names)
        self.moments = [names.index(name) for name in sorted(moments)]
        self.documents = [names.index(name) for name in sorted(documents)]


RUNS = Shape(
    "taskyard_runs",
    RunRow,
    ("id",),
    {"enqueued_at", "scheduled_for", "due_at", "started_at", "finished_at"},
    {"args", "progress"},
)
ATTEMPTS = Shape(
    "taskyard_attempts", AttemptRow, ("run_id", "number"), {"started_at", "finished_at", "next_try_at"}, {"executions"}
)


class Tables(Protocol):
    """Both tables within one transaction."""

    def runs(self, ids: Sequence[str]) -> Iterable[RunRow]:
        """Read the runs of these ids that exist."""

    def attempts(self, ids: Sequence[str], first: int, last: int) -> Iterable[AttemptRow]:
        """Read the attempts of these runs whose numbers are between `first` and `last`, both included."""

    def put[R](self, shape: Shape[R], rows: Iterable[R]) -> None:
        """Insert the rows, or write them over those of the same key."""


def tables_of(connection: Connection) -> Tables:
    """Return the tables within a connection's transaction."""
    return PostgresTables(connection) if connection.dialect.name == "postgresql" else SqliteTables(connection)


@dataclass(frozen=True, slots=True)
class PostgresTables:
    """All rows travel as one JSON text, which the server takes apart."""

    connection: Connection

    def runs(self, ids: Sequence[str]) -> Iterable[RunRow]:
        """Read the runs of these ids that exist."""
        found = self.connection.exec_driver_sql(f"{RUNS.read} WHERE id = ANY(%s)", (list(ids),))
        return [RunRow(*row) for row in found]

    def attempts(self, ids: Sequence[str], first: int, last: int) -> Iterable[AttemptRow]:
        """Read the attempts of these runs whose numbers are between `first` and `last`, both included."""
        query = f"{ATTEMPTS.read} WHERE run_id = ANY(%s) AND number BETWEEN %s AND %s"
        found = self.connection.exec_driver_sql(query, (list(ids), first, last))
        return [AttemptRow(*row) for row in found]

    def put[R](self, shape: Shape[R], rows: Iterable[R]) -> None:
        """Insert the rows, or write them over those of the same key."""
        objects = [dict(zip(shape.names, shape.values_of(row), strict=True)) for row in rows]
        if objects:
            text = dump(objects)
            self.connection.exec_driver_sql(shape.upsert.format(source=shape.from_json), (text,))


@dataclass(frozen=True, slots=True)
class SqliteTables:
    """Rows travel as tuples to one prepared statement; moments and JSON are texts there."""

    connection: Connection

    def runs(self, ids: Sequence[str]) -> Iterable[RunRow]:
        """Read the runs of these ids that exist."""
        return self._read(RUNS, "WHERE id IN (SELECT value FROM json_each(?))", dump(list(ids)))

    def attempts(self, ids: Sequence[str], first: int, last: int) -> Iterable[AttemptRow]:
        """Read the attempts of these runs whose numbers are between `first` and `last`, both included."""
        where = "WHERE run_id IN (SELECT value FROM json_each(?)) AND number BETWEEN ? AND ?"
        return self._read(ATTEMPTS, where, dump(list(ids)), first, last)

    def put[R](self, shape: Shape[R], rows: Iterable[R]) -> None:
        """Insert the rows, or write them over those of the same key."""
        values = [_to_sqlite(shape, row) for row in rows]
        if values:
            self.connection.exec_driver_sql(shape.upsert.format(source=shape.from_values), values)

    def _read[R](self, shape: Shape[R], where: str, *values: Any) -> Iterator[R]:
        for row in self.connection.exec_driver_sql(f"{shape.read} {where}", values):
            facts = list(row)
            for place in shape.moments:
                if facts[place] is not None:
                    facts[place] = datetime.fromisoformat(facts[place]).replace(tzinfo=UTC)
            for place in shape.documents:
                if facts[place] is not None:
                    facts[place] = load(facts[place])
            yield shape.row(*facts)


def _to_sqlite(shape: Shape[Any], row: Any) -> tuple[Any, ...]:
    """Return the values of a row, moments in the form in which :class:`UtcDateTime` reads them."""
    facts = list(shape.values_of(row))
    for place in shape.moments:
        if facts[place] is not None:
            facts[place] = facts[place].astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")
    for place in shape.documents:
        if facts[place] is not None:
            facts[place] = dump(facts[place])
    return tuple(facts)
