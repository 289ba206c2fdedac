"""The work as Dramatiq actors; run by its command line, and as a producer: ``python dramatiq_app.py WHAT N``."""

import os
import sys
import time

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

URL = os.environ["BENCH_URL"]
LEASE = 10  # seconds
broker = RedisBroker(url=URL, heartbeat_timeout=LEASE * 1000, maintenance_chance=100_000)
dramatiq.set_broker(broker)
client = redis.Redis.from_url(URL.replace("/0", "/1"))


@dramatiq.actor(queue_name="bench", max_retries=3)
def noop() -> None:
    """Do nothing."""


@dramatiq.actor(queue_name="bench", max_retries=3)
def nap() -> None:
    """Wait 50 ms."""
    time.sleep(0.05)  # is the work


@dramatiq.actor(queue_name="bench", max_retries=3)
def stamp(sent: float) -> None:
    """Note the milliseconds from the call to the start."""
    client.rpush("bench:latency", (time.time() - sent) * 1000)


@dramatiq.actor(queue_name="bench", max_retries=3)
def hold(seconds: float) -> None:
    """Note the start, then hold on."""
    client.rpush("bench:starts", time.time())
    time.sleep(seconds)  # is the work


if __name__ == "__main__":
    what, count = sys.argv[1], float(sys.argv[2])
    client.ping()
    broker.declare_queue("bench")
    started = time.perf_counter()
    if what in {"single", "bulk", "nap"}:  # it has no bulk call
        for _ in range(int(count)):
            (nap if what == "nap" else noop).send()
    elif what == "paced":
        for number in range(int(count)):
            time.sleep(max(0.0, started + number / 50 - time.perf_counter()))  # an even pace
            stamp.send(time.time())
    elif what == "hold":
        hold.send(count)
    print(time.perf_counter() - started)
