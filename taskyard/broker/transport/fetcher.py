"""How one channel gets its messages: `take`, else a wait for a marker key, then `take` again."""

from __future__ import annotations

import logging
from queue import Empty
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import redis

from taskyard.broker.protocol.envelope import TakenMessage, envelope_of, read_taken
from taskyard.broker.protocol.outcomes import INFRASTRUCTURE_ERRORS, DeadLettered, detail
from taskyard.broker.scripts.runner import ScriptCall, evalsha_arguments, run_script, script

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from taskyard.broker.leases.manager import LeaseManager
    from taskyard.broker.protocol.outcomes import BrokerLease
    from taskyard.broker.scripts.runner import Keyspace
    from taskyard.broker.transport.qos import QoS

log = logging.getLogger(__name__)

SERVER_TICK = 0.1  # seconds by which a blocked command may end late
TAKE_AT_MOST = 64  # messages per call: bounds the time of the script and of one turn of the loop


class FetchingChannel(Protocol):
    """What a fetcher needs of its channel: names of kombu's, and ours below."""

    active_queues: Collection[str]
    brpop_timeout: float  # seconds
    client: Any
    connection: Any
    connection_errors: Any  # classes
    qos: QoS
    _queue_cycle: Any
    _flush_brpop_reauth: Callable[[], None]

    key_prefix: str
    leases: LeaseManager
    space: Keyspace
    taken: dict[str, BrokerLease]

    @property
    def sync_client(self) -> redis.Redis:
        """One client for all calls that wait for their answer."""

    @property
    def has_loop(self) -> bool:
        """Whether a worker's loop asks for messages; else a consumer waits for a single one."""

    @property
    def is_polling(self) -> bool:
        """Whether a command is in flight."""

    def begin_poll(self, connection: Any) -> None:
        """Note that a command is in flight on this connection."""

    def end_poll(self) -> None:
        """Note that no command is in flight."""

    def take_arguments(self, queues: list[str], want: int) -> tuple[Any, ...]:
        """Return the arguments of take.lua."""


class MessageFetcher:
    """Asks the broker for messages and delivers them; one command is in flight at a time."""

    def __init__(self, channel: FetchingChannel) -> None:
        self._channel = channel
        self._takes = True  # the command that is next, or in flight, is `take`, else the wait for a marker
        self._next_look_ms = -1  # after so long a take may find something; -1: unknown
        self._is_known = True  # the server has the script of `take`; else it is sent whole once
        self._not_before = 0.0  # monotonic seconds of the next command

    def send(self, timeout: float | None = None) -> None:
        """Send `take`, or the wait for a marker when there was nothing to take; `timeout` in seconds."""
        channel = self._channel
        queues = channel._queue_cycle.consume(len(channel.active_queues))  # noqa: SLF001 - of kombu's channel
        want = min(TAKE_AT_MOST, channel.qos.free_slots())
        if not queues or not channel.qos.can_consume() or want < 1 or monotonic() < self._not_before:
            return
        if not self._takes and self._waits_in_loop():
            return
        if "can_consume" in channel.qos.__dict__ or not channel.has_loop:
            want = 1  # worker_disable_prefetch: only one more is known to fit; `drain_events` waits for a single event
        connection = channel.client.connection
        channel.begin_poll(connection)
        if self._takes:
            call = ScriptCall("take", channel.take_arguments(queues, want))
            sha, *rest = evalsha_arguments(channel.space, call)
            first = ("EVALSHA", sha) if self._is_known else ("EVAL", script("take").text)
            connection.send_command(*first, *rest)
        else:
            wait = channel.brpop_timeout if timeout is None else timeout
            if self._next_look_ms >= 0:
                wait = min(wait or 1.0, max(0.001, self._next_look_ms / 1000 - SERVER_TICK))
            markers = (f"{channel.key_prefix}marker:{queue}" for queue in queues)
            connection.send_command("BZPOPMIN", *markers, wait)

    def _waits_in_loop(self) -> bool:
        """Wait in the loop for what is due soon: a server serves blocked clients only ten times per second."""
        loop, seconds = self._channel.connection.cycle.loop, self._next_look_ms / 1000
        if loop is None or not 0 <= seconds <= SERVER_TICK:
            return False
        self._takes = True
        self._not_before = monotonic() + seconds
        loop.call_later(seconds, _wake)
        return True

    def read(self, **options: Any) -> bool:
        """
        Read the answer to what was sent, and deliver its messages.

        Raises:
            Empty: There was none.
        """
        was_take, self._takes = self._takes, True
        is_sent_again = False
        try:
            answer = self._read_answer("EVALSHA" if was_take else "BZPOPMIN", **options)
            if was_take and answer is not None:
                self._next_look_ms, self._is_known = answer[0], True
                if len(answer) > 1:
                    self._deliver_messages(answer[1:])
                    return True
                self._takes = False
                self._channel.end_poll()
                self.send()
                is_sent_again = self._channel.is_polling
            raise Empty
        finally:
            if not is_sent_again:
                self._channel.end_poll()
                self._channel._flush_brpop_reauth()  # noqa: SLF001 - of kombu's channel

    def read_error(self, **options: Any) -> None:
        """Read the error of a connection, and raise it."""
        client = self._channel.client
        client.parse_response(client.connection, "EVALSHA" if self._takes else "BZPOPMIN", **options)

    def abort(self) -> None:
        """Return what is on its way: an answer to `take` may hold messages, one to the wait for a marker holds none."""
        try:
            if self._takes:
                answer = self._read_answer("EVALSHA") or [0]
                messages = [read_taken(one) for one in answer[1:]]
                self._add_leases(messages)
                self._return_undelivered(messages)
        except (*self._channel.connection_errors, redis.RedisError, Empty) as error:
            log.debug("messages on their way come back when their leases end: %s", error)
        finally:
            self._channel.end_poll()

    def take_one(self, queue: str) -> dict[str, Any]:
        """
        Take one message now.

        Raises:
            Empty: There is none.
        """
        channel = self._channel
        answer = run_script(channel.sync_client, channel.space, "take", *channel.take_arguments([queue], 1))
        messages = [read_taken(one) for one in answer[1:]]
        self._add_leases(messages)
        for taken in messages:
            try:
                return envelope_of(taken)
            except (ValueError, TypeError, RecursionError) as error:
                self._bury(taken, error)
        raise Empty

    def _read_answer(self, command: str, **options: Any) -> Any:
        client = self._channel.client
        connection = client.connection
        try:
            return client.parse_response(connection, command, **options)
        except redis.exceptions.NoScriptError:
            self._is_known = False
            return None
        except self._channel.connection_errors:
            connection.disconnect()
            raise

    def _deliver_messages(self, answers: list[Any]) -> None:
        messages = [read_taken(answer) for answer in answers]
        self._add_leases(messages)
        for position, taken in enumerate(messages):
            try:
                self._deliver(taken)
            except INFRASTRUCTURE_ERRORS:
                self._return_undelivered(messages[position:])
                raise
            except Exception as error:  # noqa: BLE001 - a message must not end the worker, whatever is wrong with it
                self._bury(taken, error)
            except BaseException:
                self._return_undelivered(messages[position:])
                raise
        self._channel._queue_cycle.rotate(messages[-1].queue)  # noqa: SLF001 - of kombu's channel

    def _add_leases(self, messages: list[TakenMessage]) -> None:
        """Renew all leases at once: a consumer may be busy with the first message for long (solo)."""
        leases = [lease for lease in map(TakenMessage.to_lease, messages) if lease is not None]
        self._channel.leases.add(leases)
        self._channel.taken.update((lease.delivery_tag, lease) for lease in leases)

    def _return_undelivered(self, messages: list[TakenMessage]) -> None:
        """Return what has not started: the loop ends in the middle of a batch."""
        tags = [taken.delivery_tag for taken in messages]
        for tag in tags:
            self._channel.taken.pop(tag, None)
        self._channel.leases.return_unstarted(tags, with_dispatched=True)

    def _deliver(self, taken: TakenMessage) -> None:
        channel = self._channel
        if taken.lease and channel.leases.get(taken.delivery_tag) is None:  # returned, or lost, while others ran
            channel.taken.pop(taken.delivery_tag, None)
            return
        channel.connection._deliver(envelope_of(taken), taken.queue)  # noqa: SLF001 - kombu's way in

    def _bury(self, taken: TakenMessage, error: Exception) -> None:
        """Settle what cannot be read as a dead letter."""
        log.error("malformed message %s on %s becomes a dead letter", taken.tag, taken.queue, exc_info=error)
        facts = detail(error=type(error).__name__, message=str(error))
        self._channel.qos.settle(taken.delivery_tag, DeadLettered("malformed", facts))


def _wake() -> None:
    """The loop looks at its channels after each timer."""
