"""Delete old events, deliveries, attempts and excerpts in batches, with true counts; what is open stays."""

from collections.abc import Callable
from datetime import datetime, timedelta

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Delete, Update, delete, exists, select, update
from sqlmodel import Session, col

from taskyard.history.models import DeadLetter
from taskyard.settings.platform import Settings
from taskyard.webhooks.models import FINAL_STATES, Delivery, DeliveryAttempt, Event

BATCH = 500  # rows of one transaction; of attempts, those of so many deliveries


class RemovedWebhooks(BaseModel):
    """How many rows one clean-up deleted, and how many attempts lost their excerpt."""

    deliveries: int = 0
    events: int = 0
    attempts: int = 0
    excerpts: int = 0


def clean_up(
    open_session: Callable[[], Session], settings: Settings, now: datetime, *, batch: int = BATCH
) -> RemovedWebhooks:
    """
    Delete what is older than its WEBHOOK_..._RETENTION_DAYS; 0 days keep all.

    A delivery stays while it is open or parked, or has an open dead letter, and an event while it has deliveries. Runs
    twice safely, and may be broken off after any batch.
    """
    removed = RemovedWebhooks()
    steps: tuple[tuple[str, int, Callable[[Session, datetime, int], int]], ...] = (
        ("excerpts", settings.webhook_excerpt_retention_days, _clear_excerpts),
        ("attempts", settings.webhook_attempt_retention_days, _delete_attempts),
        ("deliveries", settings.webhook_delivery_retention_days, _delete_deliveries),
        ("events", settings.webhook_event_retention_days, _delete_events),
    )
    for name, days, step in steps:
        while days:
            with open_session() as session, session.begin():
                count = step(session, now - timedelta(days=days), batch)
            setattr(removed, name, getattr(removed, name) + count)
            if not count:
                break
    return removed


def _clear_excerpts(session: Session, before: datetime, batch: int) -> int:
    old = (col(DeliveryAttempt.excerpt).is_not(None), col(DeliveryAttempt.started_at) < before)
    return _count(session, update(DeliveryAttempt).where(*old, _of_some(session, old, batch)).values(excerpt=None))


def _delete_attempts(session: Session, before: datetime, batch: int) -> int:
    old = (col(DeliveryAttempt.started_at) < before,)
    return _count(session, delete(DeliveryAttempt).where(*old, _of_some(session, old, batch)))


def _delete_deliveries(session: Session, before: datetime, batch: int) -> int:
    has_dead_letter = exists().where(
        col(DeadLetter.run_id) == col(Delivery.exhausted_run_id), col(DeadLetter.state) == "open"
    )
    old = (col(Delivery.finished_at) < before, col(Delivery.state).in_(FINAL_STATES), ~has_dead_letter)
    ids = session.scalars(select(col(Delivery.id)).where(*old).limit(batch)).all()
    return _count(session, delete(Delivery).where(col(Delivery.id).in_(ids)))


def _delete_events(session: Session, before: datetime, batch: int) -> int:
    has_delivery = exists().where(col(Delivery.event_id) == col(Event.id))
    old = (col(Event.created_at) < before, ~col(Event.needs_fan_out), ~has_delivery)
    ids = session.scalars(select(col(Event.id)).where(*old).limit(batch)).all()
    return _count(session, delete(Event).where(col(Event.id).in_(ids)))


def _of_some(session: Session, old: tuple[ColumnElement[bool], ...], batch: int) -> ColumnElement[bool]:
    """Choose the deliveries whose attempts this batch changes."""
    ids = session.scalars(select(col(DeliveryAttempt.delivery_id)).where(*old).distinct().limit(batch)).all()
    return col(DeliveryAttempt.delivery_id).in_(ids)


def _count(session: Session, statement: Update | Delete) -> int:
    return int(session.connection().execute(statement).rowcount)
