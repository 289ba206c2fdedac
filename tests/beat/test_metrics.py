"""What the scheduler counts, and the alert rules that read it."""

import re
from datetime import timedelta
from pathlib import Path

from taskyard.beat.metrics import NAMES, BeatMetrics

RULES = Path(__file__).resolve().parents[2] / "dashboards" / "schedules.rules.yml"


def test_lags_are_counted_in_buckets_that_add_up() -> None:
    metrics = BeatMetrics(is_leader=True)
    for milliseconds in (0, 40, 900, 400_000):
        metrics.published(timedelta(milliseconds=milliseconds))
    lines = list(metrics.lines())
    assert 'taskyard_schedule_lag_seconds_bucket{le="0.05"} 2' in lines
    assert 'taskyard_schedule_lag_seconds_bucket{le="1.0"} 3' in lines
    assert 'taskyard_schedule_lag_seconds_bucket{le="+Inf"} 4' in lines
    assert "taskyard_schedule_lag_seconds_count 4" in lines
    assert 'taskyard_schedule_fires_total{outcome="published"} 4' in lines
    assert "taskyard_beat_leader 1" in lines


def test_all_names_are_exported_and_the_alert_rules_use_no_others() -> None:
    exported = {line.split()[2] for line in BeatMetrics().lines() if line.startswith("# TYPE")}
    assert exported == set(NAMES)
    used = set(re.findall(r"taskyard_\w+", RULES.read_text()))
    assert {name.removesuffix("_bucket") for name in used} <= exported
