"""The schema of a profile: what is expected of one database's backups."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tasks.backups.payloads import TARGET_PATTERN

LONGEST_RESTORE = timedelta(hours=4)  # below the task's own hard limit
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def duration(value: Any) -> Any:
    """
    Read a number with its unit.

    >>> duration("36h")
    datetime.timedelta(days=1, seconds=43200)

    Raises:
        ValueError: Not a number followed by s, m, h, d or w.
    """
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhdw])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('write a number with its unit, such as "90s", "30m", "26h", "7d" or "2w"')
    return timedelta(**{_UNITS[found[2]]: float(found[1])})


type Duration = Annotated[timedelta, BeforeValidator(duration)]
type Share = Annotated[float, Field(ge=0, le=1)]
type Name = Annotated[str, Field(min_length=1, max_length=200)]


class ProfileSection(BaseModel):
    """Base of all parts of a profile: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TableRules(ProfileSection):
    """What one table must hold."""

    name: Name  # "schema.table"; without a schema: public (PostgreSQL) or main (SQLite)
    min_rows: int = Field(1, ge=0)
    max_rows: int | None = Field(None, ge=0)
    min_ratio: Share = 0.8  # of the rows of the last good run
    newest: Name | None = None  # the column whose greatest value is the newest row's time; without a zone it is UTC
    max_age: Duration | None = None  # of the newest row, from now

    @model_validator(mode="after")
    def _ask_for_both(self) -> "TableRules":
        if (self.newest is None) != (self.max_age is None):
            raise ValueError("newest and max_age belong together")
        return self


class DefaultTableRules(ProfileSection):
    """What each table must hold that has no rules of its own."""

    min_rows: int = Field(0, ge=0)
    min_ratio: Share = 0.5


class RevisionRules(ProfileSection):
    """Where the schema's revision is stored, and which ones are right."""

    table: Name = "alembic_version"
    column: Name = "version_num"
    expected: list[str] = Field(min_length=1)


class SchemaRules(ProfileSection):
    """Constraints and indexes that must be there."""

    min_constraints: int = Field(0, ge=0)  # primary and foreign keys, unique, check, exclusion
    min_indexes: int = Field(0, ge=0)
    constraints: list[str] = []  # "table.name", as `celery -A tasks backups history --json` shows them
    indexes: list[str] = []
    same_as_last_good: bool = True  # nothing that the last good run had may be gone, unless the revision changed


class Assertion(ProfileSection):
    """A question in SQL whose answer is known."""

    name: Name
    sql: Annotated[str, Field(min_length=1, max_length=20_000)]  # one statement, one row, one column
    expected: bool | int | str = True


class BackupProfile(ProfileSection):
    """All that is expected of one target's backups."""

    target: Annotated[str, Field(pattern=TARGET_PATTERN)]  # the file's name
    kind: Literal["postgresql", "sqlite"]
    folder: Path  # relative to the profile's own folder
    pattern: Name  # of the dumps' names in it, such as "shop-*.dump"
    name_time: Name | None = None  # strptime format of a dump's name, in UTC; None: the file's own time counts
    max_age: Duration = timedelta(hours=26)
    stable_for: Duration = timedelta(seconds=5)  # a dump that changed more recently is still being written
    stable_within: Duration = timedelta(minutes=10)  # how long such a dump is waited for
    min_bytes: int = Field(1, ge=1)
    min_size_ratio: Share = 0.5  # of the last good dump, or else of the dump before
    manifest: Literal["required", "if_present", "off"] = "required"
    restore_timeout: Duration = timedelta(minutes=30)
    database: Name | None = None  # of a plain dump of several (pg_dumpall)
    template: Name | None = None  # database that scratch databases are copied from; None: template0
    leave_out: list[Name] = []  # objects not to restore, beside those that always are: "kind" or "kind schema.name"
    restore_jobs: int = Field(1, ge=1, le=64)  # connections of pg_restore; plain dumps use one
    query_timeout: Duration | None = None  # of each check; None: the setting BACKUP_SMOKE_TIMEOUT_MS
    notify: Literal["always", "failures"] = "always"
    tables: list[TableRules] = []
    every_table: DefaultTableRules | None = None  # None: only the tables above are counted
    revision: RevisionRules | None = None
    db_schema: SchemaRules = Field(SchemaRules(), alias="schema")
    assertions: list[Assertion] = []

    @model_validator(mode="after")
    def _ask_for_sense(self) -> "BackupProfile":
        if not (self.tables or self.every_table):
            raise ValueError("declare [[tables]] or [every_table]: a restore alone proves little")
        if not timedelta(0) < self.restore_timeout <= LONGEST_RESTORE:
            raise ValueError(f"restore_timeout: above 0 and at most {LONGEST_RESTORE}")
        if self.query_timeout is not None and self.query_timeout <= timedelta(0):
            raise ValueError("query_timeout: above 0")
        if Path(self.pattern).is_absolute() or ".." in Path(self.pattern).parts:
            raise ValueError("pattern: a name below folder, without ..")
        names = [rules.name for rules in self.tables]
        if len(set(names)) < len(names):
            raise ValueError("tables: a name stands there twice")
        if self.name_time is not None and not _has_date(self.name_time):
            raise ValueError("name_time: a format with %Y, month and day, such as shop-%Y%m%d.dump")
        return self


def _has_date(name_format: str) -> bool:
    sample = datetime(2001, 2, 3, tzinfo=UTC)
    if "%Y" not in name_format:
        return False
    try:
        read = datetime.strptime(sample.strftime(name_format), name_format).replace(tzinfo=UTC)
    except ValueError:
        return False
    return read.date() == sample.date()
