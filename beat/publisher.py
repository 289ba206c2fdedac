"""Puts the runs of slots into the broker; the same slot may be published again without running again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from celery import Celery
from kombu.exceptions import OperationalError
from redis import RedisError

from beat.errors import ScheduleError
from broker.durable_cancel import cancel
from broker.scripting import Keyspace
from broker.untyped import BatchPublishError
from broker.whereabouts import held
from config.settings import Settings
from tasks.app import find_task
from tasks.errors import InvalidPayloadError, UnknownTaskError

REMEMBERED = timedelta(minutes=10)  # the broker refuses a second message of a slot for so long, even after its end
SOON = timedelta(milliseconds=20)  # what is due by then needs no delay
BROKER_ERRORS = (OperationalError, BatchPublishError, RedisError, OSError)


class RefusedError(ScheduleError):
    """The task or its payload model no longer accepts what the schedule says; trying again cannot help."""


@dataclass(frozen=True, slots=True)
class Message:
    """One run to enqueue."""

    run_id: UUID
    schedule: str  # name
    slot: datetime
    due: datetime
    task: str
    args: dict[str, Any]
    priority: int


class Publisher(Protocol):
    """What the engine needs of a broker."""

    def publish(self, message: Message, now: datetime) -> None:
        """
        Enqueue one run, delayed until it is due.

        Raises:
            RefusedError: The task does not take it.
            OperationalError, RedisError, OSError: The broker does not answer; the message may be there or not.
        """
        ...

    def session(self) -> Any:
        """Return a context whose messages may be sent together at its end; it raises as `publish` does."""
        ...

    def withdraw(self, run_ids: Sequence[UUID], reason: str) -> None:
        """Cancel runs that wait for their due time."""
        ...

    def going_on(self, run_ids: set[UUID]) -> set[UUID]:
        """Return which of these published runs are not done, as far as the broker can tell."""
        ...


class CeleryPublisher:
    """Publishes through the app's tasks, with their own checks."""

    def __init__(self, app: Celery, client: Any, settings: Settings) -> None:
        self._app = app
        self._client = client
        self._space = Keyspace(settings.taskyard_key_prefix, settings.audit_enabled)
        self._knows_runs = settings.taskyard_transport == "taskyard"
        self._producer: Any = None

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold one producer while several messages are published; they go together when the block ends."""
        with self._app.producer_or_acquire() as producer, producer.batch():
            self._producer = producer
            try:
                yield
            finally:
                self._producer = None

    def publish(self, message: Message, now: datetime) -> None:
        """Enqueue one run; see :class:`Publisher`."""
        options: dict[str, Any] = {
            "task_id": str(message.run_id),
            "priority": message.priority,
            "dedup_key": f"slot:{message.run_id}",
            "throttle": REMEMBERED,
            "headers": {
                "schedule": message.schedule,
                "slot": message.slot.isoformat(),
                "celery_beat_task": True,
            },
            "retry": False,  # the row stays pending, and is published again
        }
        if message.due > now + SOON:
            options["eta"] = message.due
        if self._producer is not None:
            options["producer"] = self._producer
        try:
            find_task(message.task).apply_async(kwargs=message.args, **options)
        except (UnknownTaskError, InvalidPayloadError, ValueError) as error:
            raise RefusedError(str(error)) from error

    def withdraw(self, run_ids: Sequence[UUID], reason: str) -> None:
        """Cancel in the broker; the stock transport cannot, there the message runs when it is due."""
        if self._knows_runs and run_ids:
            cancel(self._client, self._space, [str(run_id) for run_id in run_ids], by="schedules", reason=reason)

    def going_on(self, run_ids: set[UUID]) -> set[UUID]:
        """Ask the broker; the stock transport does not know, there the records decide."""
        if not self._knows_runs:
            return run_ids
        return {UUID(run_id) for run_id in held(self._client, self._space.prefix, map(str, run_ids))}
