"""Read-only queries on an SQLite backup, opened in place."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from tasks.backups.checks.database_inspector import ColumnValue, QueryError
from tasks.backups.checks.verification_report import VerificationReport
from tasks.backups.dumps.dump_search import Dump
from tasks.backups.errors import InfrastructureError

STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's virtual machine, at the clock
MOST_FAULTS = 5  # named in a check's detail
# What SQLite keeps beside a file that is being written: changes that the file itself lacks, or that must be undone.
_LEFTOVERS = {"-wal": "write-ahead log", "-journal": "rollback journal"}


@contextmanager
def inspect_sqlite(path: Path, limit: timedelta) -> Iterator["SqliteInspector"]:
    """Open an inspector; ``immutable`` keeps SQLite from taking locks and making files beside the backup."""
    address = f"file:{quote(str(path))}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
        yield SqliteInspector(connection, limit)


def check_leftovers(dump: Dump, report: VerificationReport) -> None:
    """Check that no write-ahead log or journal lies beside the backup: it would be a copy of a file in use."""
    for suffix, what in _LEFTOVERS.items():
        beside = dump.path.with_name(dump.name + suffix)
        try:
            size = beside.stat().st_size
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InfrastructureError(f"{beside.name} cannot be read: {error.strerror}") from error
        if size:
            report.add("leftovers", f"{beside.name}: a {what} of {size} bytes; copied while in use", passed=False)
            return
    report.add("leftovers", "no write-ahead log or journal beside it", passed=True)


def check_integrity(inspector: "SqliteInspector", report: VerificationReport) -> bool:
    """Check every page and index, and every foreign key; return whether the file can be queried further."""
    try:
        faults = inspector.integrity_faults()
    except QueryError as error:
        return report.add("integrity_check", str(error), passed=False)
    whole = report.add("integrity_check", _some(faults) or "every page and index is sound", passed=not faults)
    try:
        orphans = inspector.foreign_key_faults()
    except QueryError as error:
        return report.add("foreign_key_check", str(error), passed=False)
    report.add("foreign_key_check", _some(orphans) or "every reference leads to a row", passed=not orphans)
    return whole


class SqliteInspector:
    """See :class:`tasks.backups.checks.database_inspector.DatabaseInspector`."""

    def __init__(self, connection: sqlite3.Connection, limit: timedelta) -> None:
        self._connection = connection
        self._limit = limit
        self._deadline = 0.0
        connection.set_progress_handler(lambda: time.monotonic() > self._deadline, STEPS_BETWEEN_LOOKS)

    def integrity_faults(self) -> list[str]:
        """Return the faults that ``PRAGMA integrity_check`` finds."""
        lines = [str(row[0]) for row in self._all("PRAGMA integrity_check(100)")]
        return [] if lines == ["ok"] else lines

    def foreign_key_faults(self) -> list[str]:
        """Return the tables whose rows refer to rows that are not there."""
        rows = self._all("PRAGMA foreign_key_check")
        return sorted({f"{row[0]} refers to missing rows of {row[2]}" for row in rows})

    def tables(self) -> list[str]:
        """Return all tables but SQLite's own."""
        query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        return sorted(str(row[0]) for row in self._all(query))

    def full_name(self, table: str) -> str:
        """Return the name without ``main.``."""
        return table.removeprefix("main.")

    def count(self, table: str) -> int:
        """Return the number of rows, counted."""
        return int(str(self._all(f"SELECT count(*) FROM {self._quoted(table)}")[0][0]))  # noqa: S608 - quoted names

    def newest(self, table: str, column: str) -> ColumnValue:
        """Return ``max(column)``."""
        return self._all(f"SELECT max({self._quoted(column)}) FROM {self._quoted(table)}")[0][0]  # noqa: S608 - quoted

    def revision(self, table: str, column: str) -> list[str]:
        """Return the column's values as text, sorted."""
        rows = self._all(f"SELECT {self._quoted(column)} FROM {self._quoted(table)}")  # noqa: S608 - quoted names
        return sorted(str(row[0]) for row in rows)

    def constraints(self) -> list[str]:
        """Return foreign keys, primary keys and unique constraints by what they bind; SQLite does not list checks."""
        keys = self._all(
            "SELECT m.name || '.fk(' || f.\"from\" || ' -> ' || f.\"table\" || ')' FROM sqlite_schema m,"
            " pragma_foreign_key_list(m.name) f WHERE m.type = 'table'"
        )
        unique = self._all(
            "SELECT m.name || '.' || i.origin || '(' || (SELECT group_concat(c.name, ', ')"
            " FROM pragma_index_info(i.name) c) || ')' FROM sqlite_schema m, pragma_index_list(m.name) i"
            " WHERE m.type = 'table' AND i.origin IN ('pk', 'u')"
        )
        return sorted(str(row[0]) for row in [*keys, *unique])

    def indexes(self) -> list[str]:
        """Return ``table.index`` of those that were made by name."""
        rows = self._all("SELECT tbl_name || '.' || name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
        return sorted(str(row[0]) for row in rows)

    def scalar(self, statement: str) -> ColumnValue:
        """Return the value; a second statement, row or column is refused."""
        rows = self._all(statement)
        if len(rows) != 1 or len(rows[0]) != 1:
            raise QueryError(f"{len(rows)} rows; an assertion answers one row with one column")
        return rows[0][0]

    def _quoted(self, name: str) -> str:
        return '"' + self.full_name(name).replace('"', '""') + '"'

    def _all(self, query: str) -> list[tuple[ColumnValue, ...]]:
        self._deadline = time.monotonic() + self._limit.total_seconds()
        try:
            return self._connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname == "SQLITE_INTERRUPT":
                raise QueryError(f"no answer within {self._limit.total_seconds():g} s") from error
            raise QueryError(str(error)) from error
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise QueryError(str(error)) from error


def _some(faults: list[str]) -> str:
    more = f" and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
    return "; ".join(" ".join(fault.split()) for fault in faults[:MOST_FAULTS]) + more
