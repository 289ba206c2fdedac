"""Copies: Celery makes the first message of a kind, the others are copies of it with their differences."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

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


class CallOrigin(NamedTuple):
    """What Celery takes from where a call is made."""

    root_id: str | None  # None: the new run is its own root
    parent_id: str | None
    reply_to: str


class MessageModel:
    """A message that Celery made, and what its copies share with it; never changed, so threads may share it."""

    def __init__(self, routed: RoutedMessage) -> None:
        self._routed = routed
        self._model = load(dumps(routed.message))  # plain JSON: kombu has marked other types
        self._args, _, self._embed = load(self._model["body"])
        headers = self._model["headers"]
        root_id = None if headers["root_id"] == headers["id"] else headers["root_id"]
        self._origin = CallOrigin(root_id, headers["parent_id"], self._model["properties"]["reply_to"])
        self.ignores_result = bool(headers["ignore_result"])

    def copy(
        self, kwargs: Mapping[str, Any], options: Mapping[str, Any], origin: CallOrigin | None = None
    ) -> tuple[str, RoutedMessage]:
        """
        Return a new run id and its message.

        Args:
            kwargs: The task's keyword arguments, JSON values.
            options: Celery's options of this message; what `fixed_options` returns of them is the model's.
            origin: Where the call is made; None: where the model's was.
        """
        run_id: str = options.get("task_id") or uuid()
        origin = origin or self._origin
        headers = self._model["headers"] | {
            **options["headers"],
            "id": run_id,
            "kwargsrepr": options["kwargsrepr"],
            "eta": _eta(options),
            "root_id": origin.root_id or run_id,
            "parent_id": options.get("parent_id", origin.parent_id),
        }
        properties = self._model["properties"] | {
            "correlation_id": run_id,
            "delivery_tag": uuid() if "task_id" in options else run_id,  # names this publication
            "priority": options["priority"],
            "kwargsrepr": options["kwargsrepr"],  # Celery puts it here too
            "reply_to": origin.reply_to,
        }
        body = dump([self._args, kwargs, self._embed])
        message = {**self._model, "headers": headers, "properties": properties, "body": body}
        return run_id, RoutedMessage(self._routed.queue, message, self._routed.expiry_ms)


class MessageCopies:
    """Puts copies of one message into a batch."""

    def __init__(self, batch: PublishBatch, model: MessageModel) -> None:
        self._batch = batch
        self._model = model

    def put(self, kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> str:
        """
        Put one copy, with arguments as of `MessageModel.copy`; return its run id.

        Raises:
            BatchPublishError: The batch was full, and the broker did not answer.
        """
        run_id, copy = self._model.copy(kwargs, options)
        self._batch.put(copy, dump)
        return run_id


def copies_of(session: object, app: Celery) -> MessageCopies | None:
    """
    Return what copies the last message of this batch, or None where each must go Celery's own way.

    That is so on another transport, for a message that went into several queues, and where publications are observed.
    """
    if is_observed(app) or not isinstance(session, PublishBatch) or len(session.routed) != 1:
        return None
    return MessageCopies(session, MessageModel(session.routed[0]))


def is_observed(app: Celery) -> bool:
    """Whether somebody looks at each publication: sent events, or signals by which tracing libraries add headers."""
    receivers = before_task_publish.receivers or ()
    return bool(
        after_task_publish.receivers
        or app.conf.task_send_sent_event
        or any(not _is_ours(receiver) for _, receiver in receivers)
    )


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
