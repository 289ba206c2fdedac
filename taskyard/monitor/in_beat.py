"""Metrics of `celery -A tasks beat`."""

import atexit
from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from taskyard.beat.metrics import BeatMetrics
from taskyard.monitor.http_server import Monitor
from taskyard.settings.loading import current_settings


class BeatCollector(Collector):
    """Exports the counters of the scheduler."""

    def __init__(self, scheduler: Any) -> None:
        """`scheduler` has `metrics`, None before its first tick."""
        self._scheduler = scheduler

    def collect(self) -> Iterable[Metric]:
        """Read them."""
        metrics = self._scheduler.metrics or BeatMetrics()
        return list(text_string_to_metric_families("\n".join(metrics.lines()) + "\n"))


def start(service: Any) -> None:
    """Serve metrics, if a port is set; called when beat starts."""
    settings = current_settings()
    if settings.metrics_port is None:
        return
    registry = CollectorRegistry()
    registry.register(BeatCollector(service.scheduler))
    monitor = Monitor(settings, registry)
    monitor.start()
    atexit.register(monitor.stop)
