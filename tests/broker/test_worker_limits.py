"""Pause, rates and concurrency over real workers, measured where the server hands out and where tasks record."""

import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

import pytest
import redis

from tests.broker.harness import POOLS, BrokerHarness
from tests.waiting import stays_true, wait_for

pytestmark = pytest.mark.timeout(300)  # many processes start
HANDED_OUT = re.compile(r"ZADD taskyard:active:celery (.+)$")  # pairs of the lease's end (ms) and the run; renewals too


def three_workers(harness: BrokerHarness, slots: int) -> None:
    """Three processes that take from the queue."""
    for number in range(3):
        harness.worker("threads", slots, name=f"w{number}", wait_ready=False)
    harness.wait_listening(3)


@contextmanager
def watched_hand_outs(harness: BrokerHarness) -> Iterator[dict[str, float]]:
    """
    The time (seconds, from an arbitrary point) at which the server handed out each run: the end of its first lease.

    MONITOR tells what the script writes; its own times are later by as long as the script was held up.
    """
    found: dict[str, float] = {}
    client: Any = redis.Redis(port=harness.server.port, socket_timeout=60)
    stream = client.monitor()

    def watch() -> None:
        for command in stream.listen():
            if match := HANDED_OUT.match(command["command"]):
                arguments = match.group(1).split()
                for lease_end, run in zip(arguments[::2], arguments[1::2], strict=True):
                    found.setdefault(run, int(lease_end) / 1000)
            if command["command"].startswith("PING the end"):
                return

    with stream:
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        yield found
        client.execute_command("PING", "the end")
        watcher.join(30)
        assert not watcher.is_alive()


def most_in_a_second(times: Sequence[float]) -> int:
    """The largest number of moments in any window of one second."""
    ordered = sorted(times)
    return max(sum(1 for at in ordered[first:] if at < since + 1) for first, since in enumerate(ordered))


def test_three_workers_never_start_more_than_a_hundred_and_one_in_any_second(harness: BrokerHarness) -> None:
    harness.control.set_rate_limit("celery", 100)
    three_workers(harness, 20)
    with watched_hand_outs(harness) as handed_out:
        with harness.app.producer_or_acquire() as producer, producer.batch():
            runs = [harness.send("record", producer=producer) for _ in range(350)]
        harness.wait_ended(runs)
    times = [handed_out[run] for run in runs]
    assert most_in_a_second(times) <= 101
    assert max(times) - min(times) < 5  # it slows, and does not stop: 3.5 s are the least


def test_three_workers_never_start_more_than_eleven_of_one_key_in_any_second(harness: BrokerHarness) -> None:
    harness.control.set_key_rate_limit("celery", 10)
    three_workers(harness, 10)
    with watched_hand_outs(harness) as handed_out:
        with harness.app.producer_or_acquire() as producer, producer.batch():
            groups = {
                harness.send("record", producer=producer, headers={"taskyard": {"group_key": f"k{number % 5}"}}): number
                % 5
                for number in range(150)
            }
        harness.wait_ended(groups)
    times = defaultdict(list)
    for run, group in groups.items():
        times[group].append(handed_out[run])
    assert len(times) == 5
    assert all(most_in_a_second(one) <= 11 for one in times.values())
    every = list(handed_out.values())
    assert max(every) - min(every) < 7  # 2.9 s are the least: the keys do not wait for each other


def test_fifty_groups_take_turns_over_three_workers(harness: BrokerHarness) -> None:
    """Each has ten tasks, put group by group; in the order in which the server hands them out, no group is ahead."""
    with harness.app.producer_or_acquire() as producer, producer.batch():
        groups = {
            harness.send("record", producer=producer, headers={"taskyard": {"group_key": f"g{number // 10}"}}): number
            // 10
            for number in range(500)
        }
    with watched_hand_outs(harness) as handed_out:
        three_workers(harness, 5)
        harness.wait_ended(groups)
    order = [groups[run] for run in sorted(handed_out, key=lambda run: handed_out[run])]
    assert [len(set(order[begin : begin + 50])) for begin in range(0, 500, 50)] == [50] * 10


def test_of_three_workers_never_more_than_seven_tasks_run_at_once(harness: BrokerHarness) -> None:
    """Each task records its start within its lease, and its end before the lease ends: the list's order is true."""
    harness.control.set_concurrency("celery", 7)
    three_workers(harness, 5)
    runs = [harness.send("record", "", 0.1) for _ in range(100)]
    harness.wait_ended(runs)
    running = list(accumulate(1 if line.startswith("start ") else -1 for line in harness.lines()))
    assert max(running) == 7
    assert running[-1] == 0


def test_a_limit_heals_when_a_worker_that_used_it_is_killed(costly_harness: BrokerHarness) -> None:
    """Leases are counted, no counter can stay wrong."""
    harness = costly_harness
    harness.control.set_concurrency("celery", 3)
    victim = harness.worker("prefork", 3)
    for _ in range(3):
        harness.send("hold")
    harness.wait_started(3)
    runs = [harness.send("record") for _ in range(5)]
    harness.worker("threads", 5, name="other")
    victim.kill()
    harness.release()
    harness.wait_ended(runs)
    assert len(set(harness.started())) == 8


@pytest.mark.parametrize("pool", POOLS)
def test_a_pause_under_load_holds_at_once_and_over_a_restart(costly_harness: BrokerHarness, pool: str) -> None:
    """What was handed out before the pause ends; whatever the machine's speed, nothing more is handed out."""
    harness = costly_harness
    worker = harness.worker(pool, 2)
    for _ in range(50):
        harness.send("record", "", 0.05)
    harness.wait_started(5)
    harness.control.pause("celery")
    handed_out = 50 - harness.control.counts("celery").waiting
    late = [harness.send("record") for _ in range(10)]  # also a machine that has done all fifty has these to take
    wait_for(lambda: harness.control.counts("celery").active == 0, 60, "what was handed out has ended")
    started = harness.started()
    assert len(started) == handed_out
    stays_true(lambda: harness.started() == started, 1.5, "nothing starts")
    worker.stop()
    worker.start()
    harness.wait_listening()
    stays_true(lambda: harness.started() == started, 1.5, "nothing starts after the restart")
    assert not set(late) & set(started)
    harness.control.resume("celery")
    harness.wait_ended(late)


def test_a_limited_queue_does_not_slow_another_one(costly_harness: BrokerHarness) -> None:
    harness = costly_harness
    harness.control.set_rate_limit("slow", 1)
    for _ in range(20):
        harness.send("record", "slow", queue="slow")
    runs = [harness.send("record", "quick", queue="quick") for _ in range(200)]
    harness.worker("threads", 4, queues="slow,quick")
    harness.wait_ended(runs, 15)
    assert harness.control.counts("slow").waiting > 0


def test_one_high_task_behind_fifty_low_ones_starts_next_or_second(harness: BrokerHarness) -> None:
    low = [harness.send("hold" if number == 0 else "record", priority=1) for number in range(50)]
    harness.worker("threads", 1)
    harness.wait_started()
    high = harness.send("record", priority=9)
    harness.release()
    harness.wait_ended([*low, high])
    assert high in harness.started()[1:3]
    assert [run for run in harness.started() if run != high] == low
