"""From a row to a schedule that can fire; a row that makes no sense is set aside, and the others go on."""

from datetime import timedelta
from typing import Any

from taskyard.beat.definitions import timing_of
from taskyard.beat.engine.agenda import Armed
from taskyard.beat.engine.planning import shift_of
from taskyard.beat.timing.slots import Remembered, Series


def can_fire(row: Any) -> bool:
    """Whether a schedule is neither paused nor retired."""
    return row.paused_at is None and row.retired_at is None


def armed_from(row: Any, ahead: timedelta) -> Armed:
    """
    Make a schedule that can fire of its row.

    A schedule that skips overlaps is never enqueued ahead: whether the run before is done shows only when it is due.

    Raises:
        InvalidScheduleError: The row holds a timing without meaning; somebody wrote it by hand.
    """
    series = Series(timing_of(row.kind, row.expression, row.zone), row.start_at, row.end_at)
    skips_overlap = row.overlap == "skip"
    return Armed(
        id=row.id,
        name=row.name,
        task=row.task,
        args=row.args,
        priority=row.priority,
        series=Remembered(series),
        shift=shift_of(row.id, timedelta(milliseconds=row.jitter_ms)),
        misfire=row.misfire,
        misfire_limit=row.misfire_limit,
        skips_overlap=skips_overlap,
        ahead=timedelta(0) if skips_overlap else ahead,
        cursor=row.cursor,
        last_run_id=row.last_run_id,
        changes=row.changes,
    )
