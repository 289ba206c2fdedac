"""kombu's `Producer.batch` on our transport: the puts of a batch go in one script call."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import redis
from kombu.utils.json import dumps

from taskyard.broker.protocol.envelope import put_fields
from taskyard.broker.scripts.runner import PendingCall, ScriptCall
from taskyard.broker.transport.dedup_reports import report_duplicate
from taskyard.broker.untyped import BatchPublishError, RedisPublishBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from taskyard.broker.scripts.runner import Keyspace
    from taskyard.broker.scripts.shared_names import PutFields

log = logging.getLogger(__name__)

PER_CALL = 64  # messages of one script call: with hundreds, the server spends twice as much on each
RUN_ID = 11  # position among the words of one put


class ScriptChannel(Protocol):
    """What a batch needs of its channel."""

    space: Keyspace

    @property
    def sync_client(self) -> redis.Redis:
        """One client for all calls that wait for their answer."""


class RoutedMessage(NamedTuple):
    """One message on its way into one queue."""

    queue: str
    message: dict[str, Any]
    expiry_ms: int  # of a temporary queue; 0 for none


class PublishBatch(RedisPublishBatch):  # type: ignore[misc]  # see taskyard/broker/untyped.py
    """Collects puts until `max_size` of them or the end of the batch, and sends them while the next are collected."""

    channel: ScriptChannel

    def __init__(self, channel: ScriptChannel, max_size: int) -> None:
        self._puts: list[PutFields] = []
        self._started: PendingCall | None = None  # the call that the server works on
        self._sent: list[PutFields] = []  # what it puts
        self.routed: list[RoutedMessage] = []  # what the last publication put, one for each of its queues
        super().__init__(channel, max_size)

    def take_puts(self) -> list[PutFields]:
        """Take out what was collected, to be put later; it is not sent with the batch."""
        puts, self._puts = self._puts, []
        return puts

    def publish(self, message: dict[str, Any], **options: Any) -> Any:
        """Route one message; what it puts is sent with its batch."""
        self.routed.clear()
        return super().publish(message, **options)

    def put(self, routed: RoutedMessage, encode: Callable[[Any], str] = dumps) -> None:
        """
        Collect one message; `encode` writes its envelope as JSON.

        Raises:
            BatchPublishError: As :meth:`flush`; what a full batch sent may fail only while the next is collected.
        """
        self._puts.append(put_fields(*routed, encode))
        if len(self._puts) >= self.max_size:
            self._send()

    def flush(self) -> None:
        """
        Send what was collected, and wait until all is put.

        Raises:
            BatchPublishError: The broker did not answer; the messages may be there or not.
        """
        self._send()
        self._wait()
        super().flush()

    def discard(self) -> None:
        """Drop what was collected, after waiting for what was sent."""
        self._puts.clear()
        try:
            self._wait()
        except BatchPublishError as error:  # the caller has an error already
            log.warning("a batch was given up, and what it had sent may be there or not: %s", error.__cause__)
        super().discard()

    def _send(self) -> None:
        """Let the server put these messages while the next are collected; one call at a time, so in their order."""
        self._check_usable()
        self._wait()
        puts, self._puts = self._puts, []
        if puts:
            self._sent = puts
            call = ScriptCall("put", tuple(chain.from_iterable(puts)))
            with self._failing():
                self._started = PendingCall(self.channel.sync_client, self.channel.space, call)

    def _wait(self) -> None:
        started, self._started = self._started, None
        if started is None:
            return
        with self._failing():
            answers = started.answer()
        for put, existing in zip(self._sent, answers, strict=True):
            if existing:
                report_duplicate(put.run_id, existing.decode())

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (redis.RedisError, OSError) as error:
            self._failed = error
            raise BatchPublishError("the batch failed; its messages may be there or not") from error
