"""SQLite backups: sound files pass; damaged, unfinished and live ones do not."""

import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.backups.checks.database_inspector import QueryError
from tasks.backups.checks.sqlite_inspector import inspect_sqlite
from tasks.backups.errors import ScratchRefusedError
from tests.backups.backup_target import BackupTarget

PROFILE = """
kind = "sqlite"
folder = "dumps"
pattern = "notes*.db"

[[tables]]
name = "notes"
newest = "written_at"
max_age = "2d"

[[tables]]
name = "authors"

[[assertions]]
name = "no note without text"
sql = "SELECT count(*) = 0 FROM notes WHERE body = ''"
"""
_TABLES = """
CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE notes (id INTEGER PRIMARY KEY, author_id INTEGER NOT NULL REFERENCES authors(id), body TEXT, written_at);
CREATE INDEX notes_by_author ON notes (author_id);
"""


@pytest.fixture
def notes(sqlite_target: BackupTarget) -> BackupTarget:
    sqlite_target.write_profile(PROFILE)
    return sqlite_target


def a_database(path: Path, *statements: str, written_at: object = None) -> Path:
    """Make a database with 5 authors and 500 notes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_TABLES)
        connection.executemany("INSERT INTO authors VALUES (?, ?)", [(n, f"author {n}") for n in range(5)])
        moment = written_at or datetime.now(UTC).isoformat()
        rows: Sequence[tuple[object, ...]] = [(n, n % 5, f"note {n} " * 30, moment) for n in range(500)]
        connection.executemany("INSERT INTO notes VALUES (?, ?, ?, ?)", rows)
        connection.commit()  # the journal mode changes outside a transaction only
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def lay(backup_target: BackupTarget, *statements: str, written_at: object = None) -> Path:
    """Put a backup into the target's folder, with its manifest."""
    path = backup_target.dumps / "notes.db"
    path.unlink(missing_ok=True)
    a_database(path, *statements, written_at=written_at)
    backup_target.add_manifest()
    return path


def test_a_sound_backup_passes_and_is_not_touched(notes: BackupTarget) -> None:
    path = lay(notes)
    before = (path.read_bytes(), path.stat().st_mtime_ns, sorted(notes.dumps.iterdir()))
    result = notes.verify()
    assert (result.state, result.reason) == ("passed", None)
    facts = notes.run(result.run_id).facts
    assert facts["rows"] == {"authors": 5, "notes": 500}
    assert facts["constraints"] == ["authors.u(name)", "notes.fk(author_id -> authors)"]
    assert facts["indexes"] == ["notes.notes_by_author"]
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(notes.dumps.iterdir())) == before


def test_a_backup_of_a_database_in_wal_mode_passes_when_it_was_made_properly(
    notes: BackupTarget, tmp_path: Path
) -> None:
    with (
        closing(sqlite3.connect(a_database(tmp_path / "live.db", "PRAGMA journal_mode = WAL"))) as live,
        closing(sqlite3.connect(notes.dumps / "notes.db")) as copy,
    ):
        live.backup(copy)
    notes.add_manifest()
    assert notes.verify().state == "passed"


def test_a_corrupted_page_fails_even_without_a_manifest(notes: BackupTarget) -> None:
    path = lay(notes)
    notes.write_profile(PROFILE, manifest='"off"')
    content = bytearray(path.read_bytes())
    place = 4096 * (len(content) // 4096 // 2)
    content[place : place + 64] = bytes(64)  # the header of a page in the middle
    path.write_bytes(content)
    result = notes.verify()
    assert result.state == "failed"
    assert next(iter(notes.failed_checks(result))) == "integrity_check"


def test_a_corrupted_first_page_fails_even_without_a_manifest(notes: BackupTarget) -> None:
    path = lay(notes)
    notes.write_profile(PROFILE, manifest='"off"')
    content = bytearray(path.read_bytes())
    content[100:200] = b"\xff" * 100  # the schema's own page, behind the file's header
    path.write_bytes(content)
    assert list(notes.failed_checks(notes.verify())) == ["integrity_check"]


def test_a_corrupted_page_fails_by_the_manifest_first(notes: BackupTarget) -> None:
    path = lay(notes)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert list(notes.failed_checks(notes.verify())) == ["checksum"]


def test_a_leftover_write_ahead_log_fails(notes: BackupTarget, tmp_path: Path) -> None:
    """Who copies the file of a database in use copies it without its newest rows, or with half of them."""
    source = a_database(tmp_path / "live.db", "PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(source)) as live:
        live.execute("INSERT INTO notes VALUES (9000, 1, 'only in the log', '2100-01-01')")
        live.commit()
        for path in tmp_path.glob("live.db*"):
            shutil.copy(path, notes.dumps / path.name.replace("live", "notes"))
    notes.add_manifest()
    failed = notes.failed_checks(notes.verify())
    assert list(failed) == ["leftovers"]
    assert failed["leftovers"].startswith("notes.db-wal: a write-ahead log of ")


def test_a_leftover_rollback_journal_fails(notes: BackupTarget) -> None:
    lay(notes).with_name("notes.db-journal").write_bytes(b"x" * 512)
    assert list(notes.failed_checks(notes.verify())) == ["leftovers"]


def test_an_empty_write_ahead_log_is_harmless(notes: BackupTarget) -> None:
    lay(notes).with_name("notes.db-wal").touch()
    assert notes.verify().state == "passed"


def test_rows_that_refer_to_nothing_fail(notes: BackupTarget) -> None:
    lay(notes, "DELETE FROM authors WHERE id = 3")
    failed = notes.failed_checks(notes.verify())
    assert failed == {"foreign_key_check": "notes refers to missing rows of authors"}


@pytest.mark.parametrize(
    ("statements", "failed"),
    [
        (["DELETE FROM notes"], {"rows notes": "0, at least 1 expected"}),
        (["DELETE FROM notes WHERE id % 5 < 2"], {"rows notes": "300, 40% fewer than the 500 of the last good run"}),
        (["DROP INDEX notes_by_author"], {"indexes": "missing: notes.notes_by_author"}),
        (["UPDATE notes SET body = '' WHERE id = 7"], {"assertion no note without text": "0, expected True"}),
    ],
)
def test_a_sound_file_with_the_wrong_content_fails(
    notes: BackupTarget, statements: list[str], failed: dict[str, str]
) -> None:
    notes.write_profile(PROFILE, min_size_ratio="0.1")
    lay(notes)
    assert notes.verify().state == "passed"
    lay(notes, *statements)
    found = notes.failed_checks(notes.verify())
    found.pop("newest notes.written_at", None)
    assert found == failed


@pytest.mark.parametrize(
    ("stored", "age_days", "is_fresh"),
    [
        (lambda moment: moment.isoformat(sep=" "), 0, True),
        (lambda moment: int(moment.timestamp()), 0, True),
        (lambda moment: moment.date().isoformat(), 0, True),
        (lambda moment: moment.isoformat(), 3, False),
        (lambda moment: moment.isoformat(), -3, False),
        (lambda _moment: "yesterday", 0, False),
    ],
    ids=["text", "seconds", "date", "old", "of the future", "no time"],
)
def test_the_newest_rows_time_is_read_as_it_is_stored(
    notes: BackupTarget, stored: Callable[[datetime], object], age_days: int, *, is_fresh: bool
) -> None:
    lay(notes, written_at=stored(datetime.now(UTC) - timedelta(days=age_days)))
    failed = [] if is_fresh else ["newest notes.written_at"]
    assert list(notes.failed_checks(notes.verify())) == failed


def test_the_live_database_itself_is_refused_as_a_backup(notes: BackupTarget, tmp_path: Path) -> None:
    path = lay(notes)
    live = tmp_path / "another-name.db"
    live.hardlink_to(path)
    notes.live_files = [tmp_path / "not-there.db", live]
    with pytest.raises(ScratchRefusedError, match="live database"):
        notes.verify()


def test_a_file_of_the_other_kind_fails(notes: BackupTarget) -> None:
    (notes.dumps / "notes.db").write_bytes(b"-- PostgreSQL database dump\n")
    notes.add_manifest()
    assert list(notes.failed_checks(notes.verify())) == ["format"]


def test_a_question_over_its_limit_is_ended(notes: BackupTarget) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with (
        inspect_sqlite(lay(notes), timedelta(seconds=0.2)) as inspector,
        pytest.raises(QueryError, match=r"no answer within 0\.2 s"),
    ):
        inspector.scalar(endless)


def test_no_question_can_change_the_backup(notes: BackupTarget) -> None:
    with inspect_sqlite(lay(notes), timedelta(seconds=5)) as inspector:
        with pytest.raises(QueryError, match="readonly"):
            inspector.scalar("DELETE FROM notes RETURNING 1")
        with pytest.raises(QueryError, match="one statement"):
            inspector.scalar("SELECT 1; DELETE FROM notes")
