"""Run a schedule now on request: a fire with its own slot, recorded before it is sent."""

from datetime import timedelta

from celery import Celery
from sqlalchemy import Engine
from sqlmodel import Session

from taskyard.beat.catalog import begin_manual_fire, database_now, find
from taskyard.beat.engine.overlap import unfinished_runs
from taskyard.beat.engine.publisher import CeleryPublisher, SlotMessage, SlotRefusedError
from taskyard.beat.engine.store import BeatStore, Published
from taskyard.beat.errors import ScheduleStateError
from taskyard.beat.models import ScheduleFire
from taskyard.broker.server.client import shared_client
from taskyard.history.operator_log import record_operation
from taskyard.settings.platform import Settings


def run_now(  # noqa: PLR0913 - the process, and one request
    engine: Engine, app: Celery, settings: Settings, name: str, *, reason: str, is_forced: bool
) -> ScheduleFire:
    """
    Enqueue one run of the schedule now, paused or not; its timetable is unchanged.

    If the broker does not answer, the leading beat process sends the run as soon as it can.

    Raises:
        ScheduleNotFoundError: There is none of this name; nothing was recorded.
        ScheduleStateError: It must not overlap, and its last run is not done; nothing was recorded.
        SlotRefusedError: Its task no longer takes these arguments.
        OperationalError, RedisError, OSError: The broker does not answer; the fire is recorded.
    """
    store = BeatStore(engine)
    publisher = CeleryPublisher(app, shared_client(settings.redis_url), settings)
    if not is_forced:
        _check_overlap(engine, store, publisher, name)
    with Session(engine, expire_on_commit=False) as session, session.begin():
        schedule, fire = begin_manual_fire(session, name)
        record_operation(session, "schedules run", name, reason=reason)
    message = SlotMessage(
        fire.id, schedule.name, fire.slot, fire.due_at, schedule.task, schedule.args, schedule.priority
    )
    try:
        publisher.send([publisher.prepare(message, fire.slot)])
    except SlotRefusedError as error:
        store.close_manual(fire.id, str(error))
        raise
    finally:
        publisher.close()
    store.published([Published(fire.id, fire.slot, timedelta(0))])
    return fire


def _check_overlap(engine: Engine, store: BeatStore, publisher: CeleryPublisher, name: str) -> None:
    with Session(engine) as session:
        schedule = find(session, name)
        last_run_id, now = schedule.last_run_id, database_now(session)
        if schedule.overlap != "skip" or last_run_id is None:
            return
    if unfinished_runs(store, publisher, [last_run_id], now):
        raise ScheduleStateError(
            f"{name!r} must not overlap, and its run {last_run_id} is not done; --force runs it anyway"
        )
