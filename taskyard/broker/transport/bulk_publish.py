"""Bulk publishing: Celery makes the first message, the others are copies of it with their differences."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery
from celery.signals import after_task_publish, before_task_publish
from celery.utils import uuid
from kombu.utils.json import dumps

from taskyard.broker.protocol.envelope import give_normal_priority
from taskyard.broker.protocol.header import FLOW_HEADER, HEADER
from taskyard.broker.protocol.json_codec import dump, load
from taskyard.broker.transport.publish_batch import PublishBatch, RoutedMessage

_DIFFERENT = frozenset({"headers", "kwargsrepr", "priority", "countdown", "eta", "task_id", "parent_id"})  # of copies
_DIFFERENT_HEADERS = frozenset({HEADER, FLOW_HEADER})


class MessageCopies:
    """Puts copies of one message into a batch."""

    def __init__(self, batch: PublishBatch, model: RoutedMessage) -> None:
        self._batch = batch
        self._routed = model
        self._model = load(dumps(model.message))  # plain JSON: kombu has marked other types
        self._args, _, self._embed = load(self._model["body"])
        headers = self._model["headers"]
        self._is_root = headers["root_id"] == headers["id"]

    def put(self, kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> str:
        """
        Put one copy; return its run id.

        Args:
            kwargs: The task's keyword arguments, JSON values.
            options: Celery's options of this message; what `fixed_options` returns of them is the model's.

        Raises:
            BatchPublishError: The batch was full, and the broker did not answer.
        """
        run_id: str = options.get("task_id") or uuid()
        headers = self._model["headers"] | {
            **options["headers"],
            "id": run_id,
            "kwargsrepr": options["kwargsrepr"],
            "eta": _eta(options),
        }
        if self._is_root:
            headers["root_id"] = run_id
        if "parent_id" in options:
            headers["parent_id"] = options["parent_id"]
        properties = self._model["properties"] | {
            "correlation_id": run_id,
            "delivery_tag": uuid() if "task_id" in options else run_id,  # names this publication
            "priority": options["priority"],
            "kwargsrepr": options["kwargsrepr"],  # Celery puts it here too
        }
        body = dump([self._args, kwargs, self._embed])
        message = {**self._model, "headers": headers, "properties": properties, "body": body}
        self._batch.put(RoutedMessage(self._routed.queue, message, self._routed.expiry_ms), dump)
        return run_id


def copies_of(session: object, app: Celery) -> MessageCopies | None:
    """
    Return what copies the last message of this batch, or None where each must go Celery's own way.

    That is so on another transport, for a message that went into several queues, and where publications are
    observed: Flower's sent events, or signals by which a tracing library adds its headers.
    """
    listeners = [receiver for _, receiver in before_task_publish.receivers or () if not _is_ours(receiver)]
    is_watched = bool(listeners or after_task_publish.receivers or app.conf.task_send_sent_event)
    if is_watched or not isinstance(session, PublishBatch) or len(session.routed) != 1:
        return None
    return MessageCopies(session, session.routed[0])


def fixed_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options and headers that a copy has from its model; they must be the same."""
    rest = {name: value for name, value in options.items() if name not in _DIFFERENT}
    return rest, {name: value for name, value in options["headers"].items() if name not in _DIFFERENT_HEADERS}


def _is_ours(receiver: Any) -> bool:
    return receiver is give_normal_priority or (callable(receiver) and receiver() is give_normal_priority)


def _eta(options: Mapping[str, Any]) -> str | None:
    if options.get("countdown") is not None:
        return (datetime.now(UTC) + timedelta(seconds=options["countdown"])).isoformat()
    eta = options.get("eta")
    return None if eta is None else eta.isoformat()
