"""Gauge samples that domains export to Prometheus."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func
from sqlmodel import Session, col, select

from taskyard.database.columns import utc_now
from taskyard.history.models import BulkOperation, DeadLetter


@dataclass(frozen=True, slots=True)
class GaugeSample:
    """One value of a gauge."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def age_seconds(since: datetime | None) -> float:
    """Return the age of a time, 0 for None and for the future."""
    return max((utc_now() - since).total_seconds(), 0.0) if since else 0.0


def gauges_by_label(name: str, explained: str, label: str, counts: Iterable[tuple[str, int]]) -> Iterator[GaugeSample]:
    """Yield one sample for each value of a label."""
    for value, count in counts:
        yield GaugeSample(name, explained, float(count), {label: value})


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
