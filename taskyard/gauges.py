"""Gauge samples that domains export to Prometheus."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from taskyard.database.columns import utc_now


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
