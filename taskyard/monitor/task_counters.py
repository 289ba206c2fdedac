"""Counts finished tasks in the main process of a worker, whatever its pool."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from taskyard.broker.worker.observers import ExecutionObserver, ExecutionResult, TaskExecution
from taskyard.tasks.known_queues import known_queues

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)  # seconds
WAITS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21_600)  # seconds
MAX_TASK_LABELS = 500  # task names; further ones, invented by foreign clients, count as `other`
OTHER_LABEL = "other"


class TaskMeters(ExecutionObserver):
    """Counts executions by task and queue, with a bounded number of labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the meters."""
        labels = ("task", "queue")
        self._total = Counter("taskyard_tasks", "Executions by outcome", (*labels, "outcome"), registry=registry)
        self._durations = Histogram(
            "taskyard_task_duration_seconds", "Run time of an execution", labels, buckets=DURATIONS, registry=registry
        )
        self._waits = Histogram(
            "taskyard_task_wait_seconds",
            "From enqueued, due or recovered to the start of an execution",
            labels,
            buckets=WAITS,
            registry=registry,
        )
        self._queues = frozenset(known_queues())
        self._tasks: set[str] = set()

    def started(self, execution: TaskExecution) -> None:
        """Note how long it waited."""
        if execution.waited is not None:
            self._waits.labels(*self._labels(execution)).observe(execution.waited)

    def ended(self, execution: TaskExecution, result: ExecutionResult) -> None:
        """Count it, and note how long it ran."""
        labels = self._labels(execution)
        self._total.labels(*labels, result).inc()
        if execution.runtime is not None:
            self._durations.labels(*labels).observe(execution.runtime)

    def _labels(self, execution: TaskExecution) -> tuple[str, str]:
        if len(self._tasks) < MAX_TASK_LABELS:
            self._tasks.add(execution.task)
        task = execution.task if execution.task in self._tasks else OTHER_LABEL
        return task, execution.queue if execution.queue in self._queues else OTHER_LABEL
