"""One number about the state of things, as Prometheus knows it; each domain gives its own."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from taskyard.database.columns import utc_now


@dataclass(frozen=True, slots=True)
class Figure:
    """A gauge's value."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def age_seconds(since: datetime | None) -> float:
    """Return how long ago a moment was, 0 for None and for the future."""
    return max((utc_now() - since).total_seconds(), 0.0) if since else 0.0


def counted(name: str, explained: str, label: str, counts: Iterable[tuple[str, int]]) -> Iterator[Figure]:
    """Give one figure for each value of a label."""
    for value, count in counts:
        yield Figure(name, explained, float(count), {label: value})
