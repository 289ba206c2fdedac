"""Changes of schedules in SQL; each gets a number by which the leader notices it."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func
from sqlmodel import Session, select

from taskyard.beat.definitions import Definition, checked, timing_of
from taskyard.beat.engine.planning import run_id_of
from taskyard.beat.engine.store import next_change
from taskyard.beat.errors import (
    CodeOwnedError,
    InvalidScheduleError,
    NameTakenError,
    ScheduleNotFoundError,
    ScheduleStateError,
)
from taskyard.beat.models import Schedule, ScheduleFire
from taskyard.beat.timing.slots import Series
from taskyard.database.columns import utc_now

CODE, OPERATOR = "code", "operator"
MS = timedelta(milliseconds=1)


def database_now(session: Session) -> datetime:
    """Return the database server's time, so that an operator's clock does not matter; on SQLite it is ours."""
    if session.get_bind().dialect.name != "postgresql":
        return utc_now()
    moment: datetime = session.exec(select(func.clock_timestamp())).one()
    return moment


def find(session: Session, name: str) -> Schedule:
    """
    Return the schedule of this name.

    Raises:
        ScheduleNotFoundError: There is none.
    """
    row = session.exec(select(Schedule).where(Schedule.name == name)).first()
    if row is None:
        raise ScheduleNotFoundError(f"no schedule {name!r}")
    return row


def add(session: Session, definition: Definition, by: str) -> Schedule:
    """
    Add a schedule owned by an operator.

    Raises:
        InvalidScheduleError: The definition is wrong, or has no slot in the future.
        NameTakenError: The name is in use.
    """
    definition = checked(definition)
    if session.exec(select(Schedule.id).where(Schedule.name == definition.name)).first() is not None:
        raise NameTakenError(f"a schedule {definition.name!r} exists; use another name, or `edit`")
    row = new_schedule(session, definition, owner=OPERATOR, by=by)
    if series_of(definition).after(row.cursor) is None:
        raise InvalidScheduleError(f"{definition.kind} {definition.expression!r}: no slot lies in the future")
    session.add(row)
    session.flush()
    return row


def edit(session: Session, name: str, by: str, **changes: Any) -> Schedule:
    """
    Change fields of a definition (see :class:`taskyard.beat.definitions.Definition`).

    Raises:
        ScheduleNotFoundError, InvalidScheduleError: As above.
        CodeOwnedError: Code owns it.
    """
    row = _find_to_change(session, name)
    if row.owner == CODE:
        raise CodeOwnedError(f"{name!r} is owned by code: change it in beat/timetable.py; here it can be paused or run")
    definition = checked(replace(definition_of(row), **changes))
    if apply(session, row, definition, by) and series_of(definition).after(row.cursor) is None:
        raise InvalidScheduleError(f"{definition.kind} {definition.expression!r}: no slot lies in the future")
    session.flush()
    return row


def pause(session: Session, name: str, by: str, reason: str | None) -> Schedule:
    """
    Pause a schedule until it is resumed, across deploys.

    Raises:
        ScheduleNotFoundError: There is none of this name.
        ScheduleStateError: It is paused.
    """
    row = _find_to_change(session, name)
    if row.paused_at is not None:
        raise ScheduleStateError(f"{name!r} is paused since {row.paused_at:%Y-%m-%d %H:%M} by {row.paused_by}")
    row.paused_at, row.paused_by, row.pause_reason = database_now(session), by, reason
    touch(session, row, by)
    return row


def resume(session: Session, name: str, by: str) -> Schedule:
    """
    Resume a paused schedule from now on; slots during the pause are not made up for.

    Raises:
        ScheduleNotFoundError: There is none of this name.
        ScheduleStateError: It is not paused.
    """
    row = _find_to_change(session, name)
    if row.paused_at is None:
        raise ScheduleStateError(f"{name!r} is not paused")
    row.paused_at = row.paused_by = row.pause_reason = None
    row.cursor = max(row.cursor, database_now(session))
    touch(session, row, by)
    return row


def remove(session: Session, name: str) -> Schedule:
    """
    Delete a schedule; its fires stay on record.

    Raises:
        ScheduleNotFoundError: There is none of this name.
        CodeOwnedError: Code declares it: it would come back.
    """
    row = _find_to_change(session, name)
    if row.owner == CODE and row.retired_at is None:
        raise CodeOwnedError(f"{name!r} is declared by code and would come back: pause it, or take it out of the code")
    session.delete(row)
    return row


def begin_manual_fire(session: Session, name: str) -> tuple[Schedule, ScheduleFire]:
    """
    Insert a fire with its own slot: now. The caller publishes it after commit; if that fails, the leader does.

    Raises:
        ScheduleNotFoundError: There is none of this name.
    """
    row = _find_to_change(session, name)
    now = database_now(session)
    fire = ScheduleFire(
        id=run_id_of(row.id, now),
        schedule_id=row.id,
        slot=now,
        due_at=now,
        state="pending",
        is_manual=True,
        recorded_at=now,
    )
    row.last_run_id, row.last_fired_at, row.fired = fire.id, now, row.fired + 1
    row.changes = next_change(session.connection())  # the leader must see the run: the next slot may have to be skipped
    session.add(fire)
    session.flush()
    return row, fire


def new_schedule(session: Session, definition: Definition, *, owner: str, by: str) -> Schedule:
    """Make a row from a checked definition; its first slot is the next one from now."""
    row = Schedule(name=definition.name, owner=owner, task="", kind="", expression="", cursor=database_now(session))
    row.created_by = by
    apply(session, row, definition, by)
    return row


def apply(session: Session, row: Schedule, definition: Definition, by: str) -> bool:
    """Copy a checked definition into a row; return whether anything changed. A new timing applies from now."""
    before = definition_of(row)
    if before == definition:
        return False
    apply_definition(row, definition)
    if series_key(before) != series_key(definition):
        row.cursor = max(row.cursor, database_now(session))
    touch(session, row, by)
    return True


def apply_definition(row: Schedule, definition: Definition) -> None:
    """Copy a checked definition into a row, without numbering the change."""
    row.task, row.args = definition.task, dict(definition.args)
    row.kind, row.expression, row.zone = definition.kind, definition.expression, definition.zone
    row.jitter_ms = definition.jitter // MS
    row.start_at, row.end_at = definition.start, definition.end
    row.misfire, row.misfire_limit = definition.misfire, definition.misfire_limit
    row.overlap, row.note = definition.overlap, definition.note
    row.priority = int(definition.priority)


def touch(session: Session, row: Schedule, by: str) -> None:
    """Number a change so that the leader notices it."""
    row.changes = next_change(session.connection())
    row.updated_at, row.updated_by = database_now(session), by


def _find_to_change(session: Session, name: str) -> Schedule:
    """Read a schedule after locking the change number, so that no leader advances it before our commit."""
    next_change(session.connection())
    return find(session, name)


def definition_of(row: Schedule) -> Definition:
    """Return the definition part of a row."""
    return Definition(
        name=row.name,
        task=row.task,
        kind=row.kind,  # type: ignore[arg-type]  # only checked definitions are saved
        expression=row.expression,
        args=row.args,
        zone=row.zone,
        jitter=row.jitter_ms * MS,
        start=row.start_at,
        end=row.end_at,
        misfire=row.misfire,  # type: ignore[arg-type]  # as above
        misfire_limit=row.misfire_limit,
        overlap=row.overlap,  # type: ignore[arg-type]  # as above
        priority=row.priority,
        note=row.note,
    )


def series_of(definition: Definition) -> Series:
    """Return the slots of a definition."""
    return Series(timing_of(definition.kind, definition.expression, definition.zone), definition.start, definition.end)


def series_key(definition: Definition) -> tuple[Any, ...]:
    """Return what decides about the slots."""
    return definition.kind, definition.expression, definition.zone, definition.start, definition.end
