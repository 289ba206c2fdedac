"""An act of the demo: a real backup is made and verified, and damaged ones are caught."""

import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from pydantic import SecretStr

from config.settings import BackupSettings
from tasks.backups.dumps.checksums import write_manifest
from tasks.backups.dumps.dump_search import find_dumps
from tasks.backups.handlers import verify
from tasks.backups.payloads import VerifyBackup
from tasks.backups.profile.loading import open_profiles
from tasks.backups.restore.postgres_programs import PostgresPrograms
from tasks.backups.restore.server_address import ServerAddress, parse_address
from tasks.backups.tasks import open_dependencies
from taskyard.settings.loading import current_settings

PREDICTIONS = 2000
_TABLES = (
    "CREATE TABLE markets (id INTEGER PRIMARY KEY, title TEXT NOT NULL)",
    """CREATE TABLE predictions (id INTEGER PRIMARY KEY, market_id INTEGER NOT NULL REFERENCES markets (id),
    amount TEXT NOT NULL, placed_at TEXT NOT NULL)""",
)
_PROFILE = """\
kind = "{kind}"
folder = "{kind}"
pattern = "market-*"

[[tables]]
name = "markets"

[[tables]]
name = "predictions"
newest = "placed_at"
max_age = "1d"

[[assertions]]
name = "every prediction has a market"
sql = "SELECT count(*) FROM predictions WHERE market_id NOT IN (SELECT id FROM markets)"
expected = 0
"""


@dataclass(frozen=True, slots=True)
class Act:
    """One verification, with what had to come of it."""

    title: str
    expected: str  # passed or failed
    state: str
    reason: str | None

    @property
    def is_right(self) -> bool:
        """Whether the verdict is the right one."""
        return self.state == self.expected


def demo_backups(folder: Path, server_url: str | None = None, programs: Path | None = None) -> Iterator[Act]:
    """
    Back databases up, verify them, damage them, and yield each verdict.

    Runs on the platform's own database, which must be migrated, so that `celery -A tasks backups history` shows the
    runs afterwards. Needs no worker.

    Args:
        folder: Takes profiles and backups; made if it is not there.
        server_url: A PostgreSQL server whose user may create databases; None leaves PostgreSQL out.
        programs: The folder of pg_dump, pg_restore and psql; None: those of PATH.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changes = {"backup_profiles": folder, "backup_dump_path": None, "backup_pg_bin": programs}
    url = SecretStr(server_url) if server_url else None
    settings = current_settings(BackupSettings).model_copy(update={**changes, "backup_ephemeral_db_url": url})
    yield from _sqlite_acts(folder, settings)
    if server_url is not None:
        yield from _postgres_acts(folder, settings, parse_address(server_url, "server_url"), PostgresPrograms(programs))


def _sqlite_acts(folder: Path, settings: BackupSettings) -> Iterator[Act]:
    backups = _prepare(folder, "sqlite")
    live = folder / "live.db"
    live.unlink(missing_ok=True)
    with closing(sqlite3.connect(live)) as connection:
        for statement in _TABLES:
            connection.execute(statement)
        connection.executemany("INSERT INTO markets VALUES (?, ?)", [(1, "Will it rain?"), (2, "Who wins?")])
        connection.executemany("INSERT INTO predictions VALUES (?, ?, ?, ?)", _predictions())
        connection.commit()
        with closing(sqlite3.connect(backups / "market-1.db")) as copy:
            connection.backup(copy)
    _seal(settings, "market-sqlite")
    yield _verify(settings, "market-sqlite", "SQLite: a backup made just now", "passed")
    damaged = shutil.copy(backups / "market-1.db", backups / "market-2.db")
    _seal(settings, "market-sqlite")
    _flip_four_bytes(Path(damaged))
    yield _verify(settings, "market-sqlite", "SQLite: the same, four bytes flipped", "failed")


def _postgres_acts(
    folder: Path, settings: BackupSettings, server: ServerAddress, programs: PostgresPrograms
) -> Iterator[Act]:
    backups = _prepare(folder, "postgresql")
    database = f"demo_market_{uuid4().hex[:8]}"
    with server.connect() as administration:
        administration.execute(f"CREATE DATABASE {database}".encode())
        try:
            with server.connect(database) as connection, connection.cursor() as cursor:
                for statement in _TABLES:
                    cursor.execute(statement.encode())
                cursor.execute("INSERT INTO markets VALUES (1, 'Will it rain?'), (2, 'Who wins?')")
                cursor.executemany("INSERT INTO predictions VALUES (%s, %s, %s, %s)", list(_predictions()))
            _dump(server, database, backups / "market-1.dump", programs)
            _seal(settings, "market-postgresql")
            yield _verify(settings, "market-postgresql", "PostgreSQL: a dump made just now", "passed")
            with server.connect(database) as connection:
                connection.execute("DELETE FROM predictions WHERE id % 5 < 2")
            _dump(server, database, backups / "market-2.dump", programs)
            _seal(settings, "market-postgresql")
            yield _verify(settings, "market-postgresql", "PostgreSQL: two fifths of the rows are gone", "failed")
        finally:
            administration.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())


def _prepare(folder: Path, kind: str) -> Path:
    backups = folder / kind
    shutil.rmtree(backups, ignore_errors=True)
    backups.mkdir()
    (folder / f"market-{kind}.toml").write_text(_PROFILE.format(kind=kind), encoding="utf-8")
    return backups


def _predictions() -> Iterator[tuple[int, int, str, str]]:
    now = datetime.now(UTC).isoformat()
    return ((number, 1 + number % 2, str(100 + number), now) for number in range(PREDICTIONS))


def _dump(server: ServerAddress, database: str, path: Path, programs: PostgresPrograms) -> None:
    """Dump as an operator would; the password is in a passfile."""
    env = server.environment(database, path.with_suffix(".pgpass"))
    command = [programs.path("pg_dump"), "--format=custom", f"--file={path}"]
    try:
        subprocess.run(command, env={"PATH": "/usr/bin:/bin", **env}, check=True, capture_output=True)  # noqa: S603 - pg_dump
    finally:
        path.with_suffix(".pgpass").unlink(missing_ok=True)


def _seal(settings: BackupSettings, target: str) -> None:
    """Write the manifest of the newest backup, as the program that made it would."""
    write_manifest(find_dumps(open_profiles(settings)[target])[0])


def _flip_four_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in random.Random(7).sample(range(len(content)), 4):  # noqa: S311 - damage, not secrecy
        content[place] ^= 0xFF
    path.write_bytes(content)


def _verify(settings: BackupSettings, target: str, title: str, expected: str) -> Act:
    result = verify(VerifyBackup(target=target), open_dependencies(settings), holder=f"demo:{uuid4().hex[:8]}")
    return Act(title, expected, result.state, result.reason)
