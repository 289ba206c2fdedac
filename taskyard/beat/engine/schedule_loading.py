"""Make armed schedules from rows; an invalid row is skipped, the others are loaded."""

from datetime import timedelta
from typing import Any

from taskyard.beat.definitions import timing_of
from taskyard.beat.engine.agenda import ArmedSchedule
from taskyard.beat.engine.planning import shift_of
from taskyard.beat.timing.slots import CachedSeries, Series


def can_fire(row: Any) -> bool:
    """Whether a schedule is neither paused nor retired."""
    return row.paused_at is None and row.retired_at is None


def arm(row: Any, ahead: timedelta) -> ArmedSchedule:
    """
    Make an armed schedule from its row.

    One that skips overlaps is never enqueued ahead: whether its previous run is done is known only when it is due.

    Raises:
        InvalidScheduleError: The timing is invalid; somebody edited the row by hand.
    """
    series = Series(timing_of(row.kind, row.expression, row.zone), row.start_at, row.end_at)
    skips_overlap = row.overlap == "skip"
    return ArmedSchedule(
        id=row.id,
        name=row.name,
        task=row.task,
        args=row.args,
        priority=row.priority,
        series=CachedSeries(series),
        shift=shift_of(row.id, timedelta(milliseconds=row.jitter_ms)),
        misfire=row.misfire,
        misfire_limit=row.misfire_limit,
        skips_overlap=skips_overlap,
        ahead=timedelta(0) if skips_overlap else ahead,
        cursor=row.cursor,
        last_run_id=row.last_run_id,
        changes=row.changes,
    )
