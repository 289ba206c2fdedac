"""Enqueue with Celery, as ``single N``, ``bulk N``, ``nap N``, ``paced N`` or ``hold SECONDS``; prints seconds."""

import sys
import time
from contextlib import nullcontext
from typing import Any

from bench.broker.celery_app import TRANSPORT, app, hold, nap, noop, stamp


def publish_all(task: Any, count: int, producer: Any) -> None:
    """Enqueue in the fastest way that the transport has."""
    if TRANSPORT == "taskyard":
        from bench.broker.celery_bulk import enqueue_many  # noqa: PLC0415 - not there for the other transports

        enqueue_many(app, task, count, producer)
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
                time.sleep(max(0.0, started + number / 50 - time.perf_counter()))  # an even pace
                stamp.apply_async((time.time(),), producer=producer)
        elif what == "hold":
            hold.apply_async((count,), producer=producer)
        print(time.perf_counter() - started)


main()
