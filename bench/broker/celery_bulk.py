"""Bulk enqueueing on our transport; the other transports' environment lacks these imports."""

from typing import Any

from celery import Celery

from taskyard.broker.transport.bulk_publish import copies_of
from taskyard.broker.transport.publish_batch import PER_CALL
from taskyard.tasks.call_options import message_options
from taskyard.tasks.payloads import Payload


class Nothing(Payload):
    """No fields."""


def enqueue_many(app: Celery, task: Any, count: int, producer: Any) -> None:
    """
    Do what `taskyard.enqueue_many` does, with the payload's checks, for tasks of another app.

    Raises:
        RuntimeError: Something listens to Celery's publish signals, so that no copies can be made.
    """
    with producer.batch(PER_CALL) as batch:
        task.apply_async(producer=producer)
        copies = copies_of(batch.state.session, app)
        if copies is None:
            raise RuntimeError("the transport makes no copies; is something connected to Celery's publish signals?")
        for _ in range(count - 1):
            wire = Nothing().to_wire()
            copies.put(wire, message_options(Nothing.mask(wire), {}))
