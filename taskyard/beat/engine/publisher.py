"""Puts the runs of slots into the broker; the same slot may be published again without running again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import batched, chain
from typing import Any, Protocol
from uuid import UUID

from celery import Celery
from kombu.exceptions import OperationalError
from redis import RedisError

from taskyard.beat.errors import ScheduleError
from taskyard.broker.admin.message_lookup import held
from taskyard.broker.scripts.runner import Keyspace, run
from taskyard.broker.transport.cancellation import cancel
from taskyard.broker.transport.publish_batch import PER_CALL
from taskyard.broker.untyped import BatchPublishError
from taskyard.settings.platform import Settings
from taskyard.tasks.errors import InvalidPayloadError, UnknownTaskError
from taskyard.tasks.sending import find_task

REMEMBERED = timedelta(minutes=10)  # the broker refuses a second message of a slot for so long, even after its end
PATIENCE = 5.0  # seconds
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message that is checked, serialized and ready to be sent."""

    message: Message
    words: tuple[bytes, ...]  # of the script `put`; empty with the stock transport


class Publisher(Protocol):
    """What the engine needs of a broker."""

    def prepare(self, message: Message, now: datetime) -> Prepared:
        """
        Make a message that is delayed until it is due; nothing is sent.

        Raises:
            RefusedError: The task does not take it.
            OperationalError, RedisError, OSError: The broker does not answer.
        """
        ...

    def send(self, prepared: Sequence[Prepared]) -> None:
        """
        Enqueue runs, together.

        Raises:
            OperationalError, RedisError, OSError: The broker does not answer; the messages may be there or not.
        """
        ...

    def withdraw(self, run_ids: Sequence[UUID], reason: str) -> None:
        """Cancel runs that wait for their due time."""
        ...

    def going_on(self, run_ids: set[UUID]) -> set[UUID]:
        """Return which of these published runs are not done, as far as the broker can tell."""
        ...


class CeleryPublisher:
    """Publishes through the app's tasks, with their own checks."""

    def __init__(self, app: Celery, client: Any, settings: Settings, patience: float = PATIENCE) -> None:
        """Prepare, and open nothing; a broker that does not answer within `patience` (seconds) is an error."""
        self._app = app
        self._client = client
        self._space = Keyspace(settings.taskyard_key_prefix, settings.audit_enabled)
        self._knows_runs = settings.taskyard_transport == "taskyard"
        limits = {"socket_timeout": patience, "socket_connect_timeout": patience}
        self._limits = {**limits, "max_retries": 0}  # kombu would look for a lost broker without end
        self._connection: Any = None
        self._producer: Any = None

    def prepare(self, message: Message, now: datetime) -> Prepared:
        """Let the task and Celery make the message, and keep what would be sent; see :class:`Publisher`."""
        if not self._knows_runs:
            _check(message)
            return Prepared(message, ())
        with self._fresh_after_errors():
            producer = self._open_producer()
            with producer.batch() as batch:
                self._publish(message, now, producer)
                words = batch.state.session.take_words()
        return Prepared(message, tuple(str(word).encode() for word in words))

    def send(self, prepared: Sequence[Prepared]) -> None:
        """Put all messages with few calls; see :class:`Publisher`."""
        if self._knows_runs:
            made = [one.words for one in prepared if one.words]
            for part in batched(made, PER_CALL, strict=False):  # a slot that is there already is left as it is
                run(self._client, self._space, "put", *chain.from_iterable(part))
            return
        with self._fresh_after_errors():
            producer = self._open_producer()
            with producer.batch():
                for one in prepared:
                    self._publish(one.message, datetime.now(UTC), producer)

    def _publish(self, message: Message, now: datetime, producer: Any) -> None:
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
            raise RefusedError(str(error)) from error

    def close(self) -> None:
        """Close the connection; the next message opens a new one."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def withdraw(self, run_ids: Sequence[UUID], reason: str) -> None:
        """Cancel in the broker; the stock transport cannot, there the message runs when it is due."""
        if self._knows_runs and run_ids:
            cancel(self._client, self._space, [str(run_id) for run_id in run_ids], by="schedules", reason=reason)

    def going_on(self, run_ids: set[UUID]) -> set[UUID]:
        """Ask the broker; the stock transport does not know, there the records decide."""
        if not self._knows_runs:
            return run_ids
        return {UUID(run_id) for run_id in held(self._client, self._space.prefix, map(str, run_ids))}

    def _open_producer(self) -> Any:
        if self._producer is None:
            self._connection = self._app.connection_for_write(transport_options=self._limits)
            self._producer = self._app.amqp.Producer(self._connection, auto_declare=False)
        return self._producer

    @contextmanager
    def _fresh_after_errors(self) -> Iterator[None]:
        """Leave a connection that failed: its server may be another one by now."""
        try:
            yield
        except BROKER_ERRORS:
            self.close()
            raise


def _check(message: Message) -> None:
    try:
        find_task(message.task).payload.from_wire(message.args).to_wire()
    except (UnknownTaskError, InvalidPayloadError) as error:
        raise RefusedError(str(error)) from error
