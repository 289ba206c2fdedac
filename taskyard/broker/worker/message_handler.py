"""The consumer's handler of each message before the task's strategy, without promises and loop turns."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from celery.exceptions import InvalidTaskError
from kombu.exceptions import ContentDisallowed, DecodeError

from taskyard.broker.protocol.field_checks import MalformedMessageError, check_body, check_old_body
from taskyard.broker.protocol.outcomes import INFRASTRUCTURE_ERRORS


class LoopWaker:
    """Wakes the loop after a pool thread freed a slot; at most one wake-up is pending."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._thread = threading.get_ident()  # the loop's
        self._is_awake = False

    def wake(self) -> None:
        """Wake the loop, unless this is its thread."""
        if not self._is_awake and threading.get_ident() != self._thread:
            self._is_awake = True
            self._hub.call_soon(self._reset)

    def _reset(self) -> None:
        """Called at the start of the turn that flushes outcomes."""
        self._is_awake = False


def checked(consumer: Any, handle: Any) -> Any:
    """Return a handler that passes on only what has no malformed field; the rest becomes a dead letter."""

    def check(message: Any) -> Any:
        try:
            check_message(message)
        except DecodeError as error:
            return consumer.on_decode_error(message, error)
        except INFRASTRUCTURE_ERRORS:
            raise
        except Exception as error:  # noqa: BLE001 - a decoder raises whatever it likes
            return consumer.on_invalid_task(None, message, error)
        return handle(message)

    return check


def check_message(message: Any) -> None:
    """
    Check all fields of a task message, of either protocol; what is no task is left to the consumer.

    Raises:
        MalformedMessageError: A field is wrong.
        Exception: What the decoder of the body raises.
    """
    headers, payload = message.headers, message.payload
    if message.problem is not None:
        raise MalformedMessageError(message.problem)
    if "task" not in headers:
        if isinstance(payload, dict) and "task" in payload:
            check_old_body(payload)
    elif isinstance(payload, dict) and "args" in payload:  # of both protocols
        check_old_body({**payload, "task": headers["task"], "id": headers["id"]})
    else:
        check_body(payload)


def task_handler(consumer: Any, celerys: Any) -> Any:
    """
    Return the handler of all task messages; `celerys` is that of Celery, for whatever is no ordinary task message.

    An acknowledgement takes effect where it is made, also in a thread of the pool: it ends a lease, and the loop, which
    owns the connection, only has to be woken to send it.
    """
    strategies, callbacks, waker = consumer.strategies, consumer.on_task_message, LoopWaker(consumer.hub)

    def handle(message: Any) -> Any:
        headers = message.headers
        strategy = strategies.get(headers.get("task")) if isinstance(headers, dict) else None
        if strategy is None:
            return celerys(message)

        def acknowledge(logger: Any, errors: Any) -> None:
            message.ack_log_error(logger, errors)
            waker.wake()

        reject = partial(consumer.call_soon_ack, message.reject_log_error)
        try:
            return strategy(message, None, acknowledge, reject, callbacks)
        except (InvalidTaskError, ContentDisallowed) as error:
            return consumer.on_invalid_task(None, message, error)
        except DecodeError as error:
            return consumer.on_decode_error(message, error)

    return handle
