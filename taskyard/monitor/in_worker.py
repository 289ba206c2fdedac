"""Metrics of a Celery worker: counts its tasks, and serves scrapes."""

from typing import Any

from celery import bootsteps
from prometheus_client import CollectorRegistry

from taskyard.broker.worker.observers import execution_observers
from taskyard.monitor.http_server import Monitor
from taskyard.monitor.task_counters import TaskMeters
from taskyard.settings.loading import current_settings


class WorkerMonitor(bootsteps.StartStopStep):
    """Starts after the pool, so that its processes are forked before our threads exist."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self.enabled = current_settings().metrics_port is not None
        self._meters: TaskMeters | None = None
        self._monitor: Monitor | None = None

    def start(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Start counting and serving."""
        registry = CollectorRegistry()
        self._meters = TaskMeters(registry)
        execution_observers.append(self._meters)
        self._monitor = Monitor(current_settings(), registry)
        self._monitor.start()

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Write the last values and stop serving."""
        if self._monitor is not None and self._meters is not None:
            self._monitor.stop()
            execution_observers.remove(self._meters)
            self._monitor = None

    terminate = stop
