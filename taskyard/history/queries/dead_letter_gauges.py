"""Gauges of dead letters and of bulk operations on them."""

from collections.abc import Iterable, Iterator

from sqlalchemy import func
from sqlmodel import Session, col, select

from taskyard.gauges import GaugeSample, age_seconds
from taskyard.history.models import BulkOperation, DeadLetter


def dead_letter_gauges(session: Session, queues: Iterable[str]) -> Iterator[GaugeSample]:
    """Yield open dead letters and their oldest age per queue, and running bulk operations."""
    query = select(DeadLetter.queue, func.count(), func.min(DeadLetter.failed_at)).where(DeadLetter.state == "open")
    found = {queue: (count, oldest) for queue, count, oldest in session.exec(query.group_by(DeadLetter.queue)).all()}
    known = list(queues)
    counts = {queue: found.get(queue, (0, None)) for queue in known}
    rest = [facts for queue, facts in found.items() if queue not in counts]
    if rest:
        counts["other"] = (sum(count for count, _ in rest), min(oldest for _, oldest in rest))
    for queue, (count, oldest) in counts.items():
        yield GaugeSample("taskyard_dead_letters", "Open dead letters", float(count), {"queue": queue})
        yield GaugeSample(
            "taskyard_dead_letter_oldest_seconds",
            "Age of the oldest open dead letter",
            age_seconds(oldest),
            {"queue": queue},
        )
    running = session.exec(select(func.count()).where(col(BulkOperation.state) == "running")).one()
    yield GaugeSample("taskyard_bulk_operations", "Running bulk operations on dead letters", float(running))
