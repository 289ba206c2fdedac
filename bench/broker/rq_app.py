"""The work as RQ jobs; run by its workers, and as a producer: ``python rq_app.py WHAT N``."""

import os
import sys
import time

import redis
from rq import Queue

URL = os.environ["BENCH_URL"]
client = redis.Redis.from_url(URL.replace("/0", "/1"))


def noop() -> None:
    """Do nothing."""


def stamp(sent: float) -> None:
    """Note the milliseconds from the call to the start."""
    client.rpush("bench:latency", (time.time() - sent) * 1000)


if __name__ == "__main__":
    what, count = sys.argv[1], int(float(sys.argv[2]))
    queue = Queue("bench", connection=redis.Redis.from_url(URL))
    started = time.perf_counter()
    if what == "single":
        for _ in range(count):
            queue.enqueue("bench.broker.rq_app.noop")
    elif what == "bulk":
        queue.enqueue_many([Queue.prepare_data("bench.broker.rq_app.noop") for _ in range(count)])
    elif what == "paced":
        for number in range(count):
            time.sleep(max(0.0, started + number / 50 - time.perf_counter()))  # an even pace
            queue.enqueue("bench.broker.rq_app.stamp", time.time())
    print(time.perf_counter() - started)
