"""What kombu's queues, exchanges and publications may ask for: each argument is supported, or refused in one line."""

from collections.abc import Mapping
from typing import Any

import kombu

from taskyard.broker.untyped import to_rabbitmq_queue_arguments

EXCHANGE_TYPES = ("direct", "topic", "fanout")
HIGHEST_MAX_PRIORITY = 10  # what Celery's documentation advises; priorities are 0 to 9
TEMPORARY = ("x-expires", "x-message-ttl")  # what only a temporary queue may have, in ms
REMEDIES = {
    "x-message-ttl": "give each task `expires`",
    "x-max-length": "no message is ever dropped for a newer one; limit the producer",
    "x-max-length-bytes": "no message is ever dropped for a newer one; limit the producer",
    "x-dead-letter-exchange": "dead letters go to the queue `dead-letter`",
    "x-dead-letter-routing-key": "dead letters go to the queue `dead-letter`",
    "x-single-active-consumer": "limit the queue to one task at once: `queues limit`",
}


class UnsupportedArgumentError(ValueError):
    """A queue, exchange or publication asks for what this transport does not do; nothing was declared or sent."""


def check_queue(name: str, arguments: Mapping[str, Any] | None, *, is_temporary: bool) -> None:
    """
    Check the arguments of a queue, in RabbitMQ's words; `is_temporary` if it is deleted with its consumer.

    Raises:
        UnsupportedArgumentError: One of them would be ignored.
    """
    for argument, value in (arguments or {}).items():
        if argument in TEMPORARY and is_temporary:
            continue
        if argument == "x-max-priority" and isinstance(value, int) and value <= HIGHEST_MAX_PRIORITY:
            continue
        if (argument, value) == ("x-queue-type", "classic"):
            continue
        raise UnsupportedArgumentError(f"queue {name!r}: {_refusal(argument, value)}")


def _refusal(argument: str, value: Any) -> str:
    if argument == "x-expires":
        return "expires is for temporary queues (auto_delete) only; a queue that stays costs nothing while it is empty"
    if argument == "x-max-priority":
        return f"max_priority {value!r} is not supported; priorities are 0 to 9, leave it out"
    if argument == "x-queue-type":
        return f"the queue type {value!r} is not supported; leave it out (task_default_queue_type)"
    remedy = REMEDIES.get(argument, "leave it out")
    return f"the argument {argument!r} is not supported; {remedy}"


def check_task_queue(queue: kombu.Queue) -> None:
    """
    Check a queue that a worker is to take from, before it connects.

    Raises:
        UnsupportedArgumentError: Something that it asks for would be ignored.
    """
    limits = ("expires", "message_ttl", "max_length", "max_length_bytes", "max_priority")
    asked = {name: getattr(queue, name) for name in limits}
    arguments = to_rabbitmq_queue_arguments(queue.queue_arguments or {}, **asked)
    check_queue(queue.name, arguments, is_temporary=bool(queue.auto_delete))
    if queue.exchange is not None:
        check_exchange(queue.exchange.name, queue.exchange.type, queue.exchange.arguments)
    check_binding(queue.name, queue.binding_arguments)
    check_consumer(queue.name, queue.consumer_arguments)


def lifetime_ms(arguments: Mapping[str, Any] | None) -> int:
    """Return for how long a temporary queue keeps a message, in ms; 0 for ever."""
    given = [int(value) for name, value in (arguments or {}).items() if name in TEMPORARY]
    return min(given, default=0)


def check_exchange(name: str, kind: str | None, arguments: Mapping[str, Any] | None) -> None:
    """
    Check the type and the arguments of an exchange.

    Raises:
        UnsupportedArgumentError: One of them would be ignored.
    """
    if kind and kind not in EXCHANGE_TYPES:
        raise UnsupportedArgumentError(
            f"exchange {name!r}: type {kind!r} is not supported; use direct, topic or fanout"
        )
    if arguments:
        raise UnsupportedArgumentError(f"exchange {name!r}: arguments are not supported: {', '.join(arguments)}")


def check_binding(queue: str, arguments: Mapping[str, Any] | None) -> None:
    """
    Check how a queue is bound.

    Raises:
        UnsupportedArgumentError: There are arguments, which only an exchange of type headers would read.
    """
    if arguments:
        raise UnsupportedArgumentError(f"queue {queue!r}: binding_arguments are not supported: {', '.join(arguments)}")


def check_consumer(queue: str, arguments: Mapping[str, Any] | None) -> None:
    """
    Check how a queue is consumed.

    Raises:
        UnsupportedArgumentError: There are arguments: all consumers of a queue are alike.
    """
    if arguments:
        raise UnsupportedArgumentError(f"queue {queue!r}: consumer_arguments are not supported: {', '.join(arguments)}")


def check_publication(headers: Mapping[str, Any] | None, properties: Mapping[str, Any]) -> None:
    """
    Check the properties of a message.

    Raises:
        UnsupportedArgumentError: It should expire and is no task; a task's `expires` is a header.
    """
    if properties.get("expiration") is not None and "task" not in (headers or {}):
        raise UnsupportedArgumentError("expiration is supported for tasks only, as `expires`")
