"""Celery's settings, derived from ours; what depends on the transport is added by ``broker.transport.options``."""

from typing import Any

from kombu import Queue as KombuQueue

from taskyard.settings.platform import Settings
from taskyard.settings.queues import DEFAULT, QUEUES, Queue


def celery_config(settings: Settings) -> dict[str, Any]:
    """Return the part of Celery's configuration that holds for every transport."""
    return {
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "timezone": "UTC",
        "task_queues": [kombus(queue) for queue in QUEUES],
        "task_default_queue": DEFAULT.name,
        # Delivery at least once: a message is done when its handler is done, and a worker holds only what it runs.
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Results are kept only for a caller that asks (ignore_result=False), and not for long.
        "task_ignore_result": True,
        "result_expires": 3600,
        "worker_pool": "threads",
        "worker_concurrency": settings.worker_queue_concurrency,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_soft_shutdown_timeout": settings.worker_shutdown_seconds.total_seconds(),
        "worker_enable_soft_shutdown_on_idle": True,
        "beat_schedule_filename": str(settings.taskyard_data / "beat-schedule"),
    }


def kombus(queue: Queue) -> KombuQueue:
    """Return the queue as Celery knows it."""
    return KombuQueue(queue.name, routing_key=queue.name)
