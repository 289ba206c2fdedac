"""Publishes the runs of slots; publishing a slot twice runs it once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from celery import Celery
from kombu.exceptions import OperationalError
from redis import RedisError

from taskyard.beat.errors import ScheduleError
from taskyard.broker.admin.message_lookup import find_live_runs
from taskyard.broker.scripts.runner import Keyspace
from taskyard.broker.transport.cancellation import cancel
from taskyard.broker.transport.prepared_publish import PreparedPuts, prepare_publication, put_prepared
from taskyard.broker.untyped import BatchPublishError
from taskyard.settings.platform import Settings
from taskyard.tasks.errors import InvalidPayloadError, UnknownTaskError
from taskyard.tasks.sending import find_task

REMEMBERED = timedelta(minutes=10)  # the broker refuses a second message of a slot for this long, even after it ended
PATIENCE = 5.0  # seconds
SOON = timedelta(milliseconds=20)  # messages due within this are sent without a delay
BROKER_ERRORS = (OperationalError, BatchPublishError, RedisError, OSError)


class SlotRefusedError(ScheduleError):
    """The task no longer exists or no longer accepts the arguments of the schedule; retrying cannot help."""


@dataclass(frozen=True, slots=True)
class SlotMessage:
    """The run of one slot, to be enqueued."""

    run_id: UUID
    schedule: str  # name
    slot: datetime
    due: datetime
    task: str
    args: dict[str, Any]
    priority: int


@dataclass(frozen=True, slots=True)
class PreparedMessage:
    """A message that was validated and serialized, ready to be sent."""

    message: SlotMessage
    puts: PreparedPuts  # empty with the stock transport


class Publisher(Protocol):
    """The broker as the engine sees it."""

    def prepare(self, message: SlotMessage, now: datetime) -> PreparedMessage:
        """
        Make a message delayed until it is due, without sending it.

        Raises:
            SlotRefusedError: The task does not take it.
            OperationalError, RedisError, OSError: The broker does not answer.
        """
        ...

    def send(self, prepared: Sequence[PreparedMessage]) -> None:
        """
        Enqueue runs in few calls.

        Raises:
            OperationalError, RedisError, OSError: The broker does not answer; the messages may have arrived or not.
        """
        ...

    def withdraw(self, run_ids: Sequence[UUID], reason: str) -> None:
        """Cancel runs that are delayed until their slots are due."""
        ...

    def live_runs(self, run_ids: set[UUID]) -> set[UUID] | None:
        """Return which of these runs have a message that is waiting, delayed or active; None: it cannot tell."""
        ...


class CeleryPublisher:
    """Publishes through the app's tasks, with their validation."""

    def __init__(self, app: Celery, client: Any, settings: Settings, patience: float = PATIENCE) -> None:
        """Make a publisher without connecting; `patience` is the broker timeout in seconds."""
        self._app = app
        self._client = client
        self._space = Keyspace(settings.taskyard_key_prefix, settings.audit_enabled)
        self._knows_runs = settings.taskyard_transport == "taskyard"
        limits = {"socket_timeout": patience, "socket_connect_timeout": patience}
        self._limits = {**limits, "max_retries": 0}  # else kombu retries a lost broker for ever
        self._connection: Any = None
        self._producer: Any = None

    def prepare(self, message: SlotMessage, now: datetime) -> PreparedMessage:
        """Let the task and Celery make the message, and capture what would be sent; see :class:`Publisher`."""
        if not self._knows_runs:
            _check(message)
            return PreparedMessage(message, ())
        with self._fresh_after_errors():
            producer = self._open_producer()
            publish = partial(self._publish, message, now, producer)
            return PreparedMessage(message, prepare_publication(producer, publish))

    def send(self, prepared: Sequence[PreparedMessage]) -> None:
        """Put all messages with few calls; see :class:`Publisher`."""
        if self._knows_runs:
            put_prepared(self._client, self._space, [one.puts for one in prepared if one.puts])
            return
        with self._fresh_after_errors():
            producer = self._open_producer()
            with producer.batch():
                for one in prepared:
                    self._publish(one.message, datetime.now(UTC), producer)

    def _publish(self, message: SlotMessage, now: datetime, producer: Any) -> None:
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
            "producer": producer,
        }
        if message.due > now + SOON:
            options["eta"] = message.due
        try:
            find_task(message.task).apply_async(kwargs=message.args, **options)
        except (UnknownTaskError, InvalidPayloadError, ValueError) as error:
            raise SlotRefusedError(str(error)) from error

    def close(self) -> None:
        """Close the connection; the next message opens a new one."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def withdraw(self, run_ids: Sequence[UUID], reason: str) -> None:
        """Cancel in the broker; with the stock transport, which cannot, the message runs when due."""
        if self._knows_runs and run_ids:
            cancel(self._client, self._space, [str(run_id) for run_id in run_ids], by="schedules", reason=reason)

    def live_runs(self, run_ids: set[UUID]) -> set[UUID] | None:
        """Ask the broker; with the stock transport messages cannot be looked up."""
        if not self._knows_runs:
            return None
        return {UUID(run_id) for run_id in find_live_runs(self._client, self._space.prefix, map(str, run_ids))}

    def _open_producer(self) -> Any:
        if self._producer is None:
            self._connection = self._app.connection_for_write(transport_options=self._limits)
            self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
        return self._producer

    @contextmanager
    def _fresh_after_errors(self) -> Iterator[None]:
        """Drop a connection that failed: its server may have been replaced."""
        try:
            yield
        except BROKER_ERRORS:
            self.close()
            raise


def _check(message: SlotMessage) -> None:
    try:
        find_task(message.task).payload.from_wire(message.args).to_wire()
    except (UnknownTaskError, InvalidPayloadError) as error:
        raise SlotRefusedError(str(error)) from error
