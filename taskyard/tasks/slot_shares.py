"""Bound the queues that declare a share to it: of the worker slots that exist, measured, and enforced by the broker."""

import math
import threading
from collections.abc import Iterable
from typing import Any

import redis
import structlog
from celery import bootsteps

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.broker.server.client import shared_client
from taskyard.settings.loading import current_settings
from taskyard.settings.queues import QUEUES, Queue

FIRST_ROUNDS, FIRST_INTERVAL = 10, 1.0  # seconds; while workers start
INTERVAL = 10.0  # seconds

log = structlog.stdlib.get_logger(__name__)


class SlotShares(bootsteps.StartStopStep):
    """
    Keeps the limits of such queues in step with the slots that exist.

    Those are the processes that take from the queue now, as often as this one has slots. A limit that an operator has
    set with `queues limit` stays as it is.
    """

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def include_if(self, parent: Any) -> bool:
        """Only where the worker takes from such a queue."""
        return any(_shared(parent.app.amqp.queues.consume_from))

    def start(self, parent: Any) -> None:
        """Begin to look."""
        queues = list(_shared(parent.app.amqp.queues.consume_from))
        self._thread = threading.Thread(
            target=self._keep, args=(queues, int(parent.concurrency or 1)), name="slot-shares", daemon=True
        )
        self._thread.start()

    def stop(self, parent: Any) -> None:  # noqa: ARG002 - Celery's signature
        """End the thread."""
        self._ended.set()

    def terminate(self, parent: Any) -> None:
        """As `stop`."""
        self.stop(parent)

    def _keep(self, queues: list[Queue], slots: int) -> None:
        for number in range(2**62):
            try:
                share_slots(queues, slots)
            except (redis.RedisError, OSError) as error:
                log.debug("slot_shares.not_updated", error=str(error))
            if self._ended.wait(FIRST_INTERVAL if number < FIRST_ROUNDS else INTERVAL):
                return


def share_slots(queues: Iterable[Queue], slots: int) -> None:
    """
    Set the limits of queues with a share once.

    Args:
        queues: Those that have a share.
        slots: Of this worker process; the others are taken to have as many.

    Raises:
        RedisError, OSError: The broker does not answer.
    """
    settings = current_settings()
    client = shared_client(settings.redis_url)
    control = QueueControl(client, settings.taskyard_key_prefix)
    for queue in queues:
        total = slots * max(1, len(control.consumers(queue.name)))
        key = f"{settings.taskyard_key_prefix}limits:{queue.name}"
        wanted = {"concurrency": queue.slots_of(total), "key_concurrency": queue.group_slots_of(total)}
        setters = {"concurrency": control.set_concurrency, "key_concurrency": control.set_key_concurrency}
        for name, value in wanted.items():
            if value is None:
                continue
            present, ours = (_number(word) for word in client.hmget(key, [name, f"auto_{name}"]))
            if present == ours and present != value:  # neither set nor removed by an operator
                client.hset(key, f"auto_{name}", str(value))
                setters[name](queue.name, value)


def _shared(names: Iterable[str]) -> Iterable[Queue]:
    wanted = set(names)
    return (queue for queue in QUEUES if queue.name in wanted and queue.share is not None)


def _number(word: Any) -> int | None:
    return None if word is None else math.floor(float(word))
