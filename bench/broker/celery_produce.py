"""Enqueue with Celery, as ``single N``, ``bulk N``, ``nap N``, ``paced N`` or ``hold SECONDS``; prints seconds."""

import sys
import time
from contextlib import nullcontext
from typing import Any

from bench.broker.celery_app import TRANSPORT, app, hold, nap, noop, stamp
from broker.copies import copies_of
from tasks.calls import message_options
from tasks.payloads import Payload


class Nothing(Payload):
    """No fields."""


def enqueue_many(task: Any, count: int, producer: Any) -> None:
    """Do what `tasks.app.enqueue_many` does, with the payload's checks, for tasks of this app."""
    with producer.batch(500) as batch:
        task.apply_async(producer=producer)
        copies = copies_of(batch.state.session, app)
        if copies is None:
            raise RuntimeError("the transport makes no copies; is something connected to Celery's publish signals?")
        for _ in range(count - 1):
            wire = Nothing().to_wire()
            copies.put(wire, message_options(Nothing.mask(wire), {}))


def publish_all(task: Any, count: int, producer: Any) -> None:
    """Enqueue in the fastest way that the transport has."""
    if TRANSPORT == "taskyard":
        enqueue_many(task, count, producer)
        return
    with producer.batch() if TRANSPORT == "stock" else nullcontext():
        for _ in range(count):
            task.apply_async(producer=producer)


def main() -> None:
    """Do what the arguments say."""
    what, count = sys.argv[1], float(sys.argv[2])
    noop.backend  # noqa: B018 - connects nothing, but imports what the first call would
    with app.producer_or_acquire() as producer:
        producer.connection.ensure_connection()
        started = time.perf_counter()
        if what == "single":
            for _ in range(int(count)):
                noop.apply_async(producer=producer)
        elif what in {"bulk", "nap"}:
            publish_all(nap if what == "nap" else noop, int(count), producer)
        elif what == "paced":
            for number in range(int(count)):
                time.sleep(max(0.0, started + number / 50 - time.perf_counter()))
                stamp.apply_async((time.time(),), producer=producer)
        elif what == "hold":
            hold.apply_async((count,), producer=producer)
        print(time.perf_counter() - started)


main()
