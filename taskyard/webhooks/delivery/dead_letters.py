"""Keep dead letters in step with their deliveries: one that was sent after all has no open dead letter."""

from collections.abc import Sequence

from sqlmodel import Session, col, select

from taskyard.history.dead_letters import discard_dead_letters_of
from taskyard.webhooks.models import Delivery

BATCH = 500
BY = "webhooks"  # who resolved them


def resolve(session: Session, deliveries: Sequence[Delivery], reason: str) -> int:
    """
    Discard the open dead letters of these deliveries for this reason; return how many. The caller commits.

    A dead letter that its task has not stored yet is found by :func:`resolve_late`.
    """
    by_run = {row.exhausted_run_id: row for row in deliveries if row.exhausted_run_id is not None}
    if not by_run:
        return 0
    done = discard_dead_letters_of(session, list(by_run), by=BY, reason=reason)
    for run_id in done:
        by_run[run_id].exhausted_run_id = None
    return len(done)


def resolve_late(session: Session) -> int:
    """Discard dead letters that were stored after their delivery had succeeded; return how many."""
    query = select(Delivery).where(Delivery.state == "delivered", col(Delivery.exhausted_run_id).is_not(None))
    return resolve(session, session.exec(query.limit(BATCH)).all(), "the delivery succeeded meanwhile")
