"""Bring the code's timetable into SQL: code owns its definitions, operators own pauses and their own schedules."""

from collections.abc import Iterable
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlmodel import Session, col, select

from taskyard.beat.catalog import apply, database_now, new_schedule, touch
from taskyard.beat.definitions import Definition
from taskyard.beat.entries import Entry
from taskyard.beat.errors import InvalidScheduleError
from taskyard.beat.models import Schedule

CODE, OPERATOR = "code", "operator"
log = structlog.get_logger(__name__)


def deploy(engine: Engine, entries: Iterable[Entry[Any]]) -> None:
    """
    Make the code-owned schedules in SQL those of the timetable, by name, in one transaction.

    New ones are added, changed ones changed (a pause stays), those that code no longer declares are retired, and come
    back when it declares them again. A schedule of a person is never touched; an entry of the same name is left out.
    An entry that is wrong (a setting may be) is logged, and what it was before stays.
    """
    wanted, wrong = _read(entries)
    with Session(engine) as session, session.begin():
        concerned = (col(Schedule.owner) == CODE) | col(Schedule.name).in_(wanted)
        existing = {row.name: row for row in session.exec(select(Schedule).where(concerned)).all()}
        for name, definition in wanted.items():
            _deploy_one(session, existing.get(name), definition)
        for name, row in existing.items():
            if row.owner == CODE and name not in wanted | wrong and row.retired_at is None:
                row.retired_at = database_now(session)
                touch(session, row, CODE)
                log.warning("schedule.retired", schedule=name)


def _read(entries: Iterable[Entry[Any]]) -> tuple[dict[str, Definition], dict[str, None]]:
    """Return the definitions of the entries, and the names of the wrong ones."""
    wanted: dict[str, Definition] = {}
    wrong: dict[str, None] = {}
    for entry in entries:
        if entry.is_enabled:
            try:
                wanted[entry.name] = entry.definition()
            except InvalidScheduleError as error:
                wrong[entry.name] = None
                log.error("schedule.entry_invalid", schedule=entry.name, reason=str(error))  # noqa: TRY400 - the reason says it
    return wanted, wrong


def _deploy_one(session: Session, row: Schedule | None, definition: Definition) -> None:
    if row is None:
        session.add(new_schedule(session, definition, owner=CODE, by=CODE))
        log.info("schedule.added", schedule=definition.name, owner=CODE)
    elif row.owner != CODE:
        log.error("schedule.name_taken", schedule=definition.name, owner=row.owner)
    elif row.retired_at is not None:
        row.retired_at = None
        apply(session, row, definition, by=CODE)
        row.cursor = database_now(session)  # what passed while it was retired was not wanted
        log.info("schedule.returned", schedule=definition.name)
    elif apply(session, row, definition, by=CODE):
        log.info("schedule.changed", schedule=definition.name, owner=CODE)
