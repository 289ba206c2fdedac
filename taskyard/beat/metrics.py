"""Numbers about the scheduler: what this process has done since it started, as Prometheus knows them."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

LAG_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
NAMES = (
    "taskyard_beat_leader",
    "taskyard_beat_takeovers_total",
    "taskyard_beat_schedules",
    "taskyard_beat_tick_seconds",
    "taskyard_schedule_fires_total",
    "taskyard_schedule_lag_seconds",
)


@dataclass(slots=True)
class BeatMetrics:
    """
    Counters of one process; add those of all processes up, and take the highest `taskyard_beat_leader`.

    A fire's outcome is `published`, `skipped`, `missed`, `refused` or `withdrawn`; its lag is the time from when it
    was due until it was in the broker, 0 when it was enqueued ahead.
    """

    is_leader: bool = False
    takeovers: int = 0
    schedules: int = 0  # that can fire; 0 on a process that stands by
    last_tick: float = 0.0  # seconds
    fires: Counter[str] = field(default_factory=Counter)
    lag_counts: list[int] = field(default_factory=lambda: [0] * (len(LAG_BUCKETS) + 1))
    lag_sum: float = 0.0  # seconds

    def published(self, lag: timedelta) -> None:
        """Count one published fire."""
        seconds = lag.total_seconds()
        self.fires["published"] += 1
        self.lag_sum += seconds
        self.lag_counts[next((i for i, bound in enumerate(LAG_BUCKETS) if seconds <= bound), len(LAG_BUCKETS))] += 1

    def lines(self) -> Iterator[str]:
        """Yield the Prometheus text, one line at a time."""
        yield from _gauge("taskyard_beat_leader", "1 when this process leads", int(self.is_leader))
        yield from _gauge("taskyard_beat_schedules", "Schedules that can fire", self.schedules)
        yield from _gauge("taskyard_beat_tick_seconds", "Length of the last tick", self.last_tick)
        yield from _head("taskyard_beat_takeovers_total", "Times that this process took the lead", "counter")
        yield f"taskyard_beat_takeovers_total {self.takeovers}"
        yield from _head("taskyard_schedule_fires_total", "Slots that were settled, by outcome", "counter")
        for outcome, count in sorted(self.fires.items()):
            yield f'taskyard_schedule_fires_total{{outcome="{outcome}"}} {count}'
        yield from self._lag_lines()

    def _lag_lines(self) -> Iterator[str]:
        name = "taskyard_schedule_lag_seconds"
        yield from _head(name, "From due to published", "histogram")
        total = 0
        for bound, count in zip((*map(str, LAG_BUCKETS), "+Inf"), self.lag_counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self.lag_sum}"
        yield f"{name}_count {total}"


def _gauge(name: str, text: str, value: float) -> Iterator[str]:
    yield from _head(name, text, "gauge")
    yield f"{name} {value}"


def _head(name: str, text: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
