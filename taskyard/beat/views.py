"""Read-only views of schedules: state, next slots, last outcome."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel import Session, col, select

from taskyard.beat.catalog import CODE, apply_definition, database_now, definition_of, find, series_of
from taskyard.beat.definitions import Definition
from taskyard.beat.engine.planning import shift_of
from taskyard.beat.entries import Entry
from taskyard.beat.models import Schedule, ScheduleFire
from taskyard.beat.timing.describe import timing_text
from taskyard.history.models import Run
from taskyard.tasks.errors import InvalidPayloadError, UnknownTaskError
from taskyard.tasks.sending import find_task

NEXT = 5  # slots that a preview shows
MASKED = "***"
STATES = ("active", "paused", "retired", "done", "disabled")


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """One schedule for a listing."""

    schedule: Schedule
    state: str  # one of STATES
    when: str  # in words
    next: list[datetime]  # due times, its shift included
    last_outcome: str | None  # state of its last run, or of its last fire; None: never fired
    last_lag_ms: int | None
    needs: str = ""  # settings that a disabled entry of the code needs


@dataclass(frozen=True, slots=True)
class FireView:
    """One fire and the state of its run."""

    fire: ScheduleFire
    outcome: str


def list_schedules(session: Session, entries: Iterable[Entry[Any]] = (), count: int = 1) -> list[ScheduleView]:
    """Return all schedules by name, each with its next slots; `entries` of the code that are off are `disabled`."""
    off = {entry.name: entry for entry in entries if not entry.is_enabled}
    rows = session.exec(select(Schedule).order_by(col(Schedule.name))).all()
    rows = [row for row in rows if row.name not in off or row.retired_at is None]
    outcomes = _outcomes(session, rows)
    now = database_now(session)
    views = [_view(row, outcomes.get(str(row.last_run_id)), now, count) for row in rows]
    views += [_disabled(off[name], now) for name in off.keys() - {row.name for row in rows}]
    return sorted(views, key=lambda view: view.schedule.name)


def show_schedule(session: Session, name: str) -> ScheduleView:
    """
    Return one schedule with its next five slots.

    Raises:
        ScheduleNotFoundError: There is none of this name.
    """
    row = find(session, name)
    return _view(row, _outcomes(session, [row]).get(str(row.last_run_id)), database_now(session), NEXT)


def list_fires(session: Session, schedule: Schedule, limit: int) -> list[FireView]:
    """Return the latest fires of a schedule, newest first."""
    query = (
        select(ScheduleFire)
        .where(ScheduleFire.schedule_id == schedule.id)
        .order_by(col(ScheduleFire.slot).desc())
        .limit(limit)
    )
    fires = session.exec(query).all()
    states = dict(
        session.exec(select(Run.id, Run.state).where(col(Run.id).in_([str(fire.id) for fire in fires]))).all()
    )
    return [FireView(fire, states.get(str(fire.id), fire.state)) for fire in fires]


def origin_of(session: Session, run_id: str) -> dict[str, Any]:
    """
    Return schedule, slot and lag of a run, by the fires that are kept; {} for a run that no schedule enqueued.

    The schedule is None when it was removed.
    """
    try:
        fire = session.get(ScheduleFire, UUID(run_id))
    except ValueError:
        return {}
    if fire is None:
        return {}
    schedule = session.get(Schedule, fire.schedule_id)
    return {
        "schedule": schedule and schedule.name,
        "slot": fire.slot,
        "slot_lag_ms": fire.lag_ms,
        "is_manual": fire.is_manual,
    }


def preview(definition: Definition, after: datetime, count: int = NEXT) -> list[datetime]:
    """
    Return the first slots of a definition after a moment.

    Raises:
        InvalidScheduleError: Its timing has no meaning.
    """
    series = series_of(definition)
    slots: list[datetime] = []
    slot = series.after(after)
    while slot is not None and len(slots) < count:
        slots.append(slot)
        slot = series.after(slot)
    return slots


def shown_args(task: str, args: dict[str, Any]) -> dict[str, Any]:
    """Return a schedule's arguments with hidden fields masked; of a task that is gone, only their names."""
    try:
        return find_task(task).payload.from_wire(args).shown()
    except (UnknownTaskError, InvalidPayloadError):
        return dict.fromkeys(args, MASKED)


def _disabled(entry: Entry[Any], now: datetime) -> ScheduleView:
    """Return what code would schedule if its settings were given."""
    definition = entry.definition()
    row = Schedule(name=entry.name, owner=CODE, task=definition.task, kind=definition.kind, expression="", cursor=now)
    apply_definition(row, definition)
    return ScheduleView(row, "disabled", timing_text(row.kind, row.expression, row.zone), [], None, None, entry.needs)


def _outcomes(session: Session, rows: Sequence[Schedule]) -> dict[str, tuple[str, int | None]]:
    """Return state and lag of the last runs by run id; the state of the run if recorded, else that of the fire."""
    ids = [row.last_run_id for row in rows if row.last_run_id is not None]
    found: dict[str, tuple[str, int | None]] = {}
    for begin in range(0, len(ids), 500):
        part = ids[begin : begin + 500]
        fires = session.exec(select(ScheduleFire).where(col(ScheduleFire.id).in_(part))).all()
        states = dict(session.exec(select(Run.id, Run.state).where(col(Run.id).in_([str(i) for i in part]))).all())
        found |= {str(fire.id): (states.get(str(fire.id), fire.state), fire.lag_ms) for fire in fires}
    return found


def _view(row: Schedule, outcome: tuple[str, int | None] | None, now: datetime, count: int) -> ScheduleView:
    definition = definition_of(row)
    shift = shift_of(row.id, definition.jitter)
    can_fire = row.paused_at is None and row.retired_at is None
    following = [slot + shift for slot in preview(definition, max(row.cursor, now - shift), count)] if can_fire else []
    state = "retired" if row.retired_at else "paused" if row.paused_at else "active" if following else "done"
    return ScheduleView(
        schedule=row,
        state=state,
        when=timing_text(row.kind, row.expression, row.zone),
        next=following,
        last_outcome=outcome[0] if outcome else None,
        last_lag_ms=outcome[1] if outcome else None,
    )
