"""A server that has reached `maxmemory` refuses new messages and nothing else: what is there is worked off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import chord
from kombu.exceptions import OperationalError

from tests.broker.harness import POOLS, BrokerHarness
from tests.waiting import stays_true, wait_for


@contextmanager
def full(harness: BrokerHarness) -> Iterator[None]:
    """Not a byte more is to be had."""
    harness.broker.config_set("maxmemory", 1)
    try:
        yield
    finally:
        harness.broker.config_set("maxmemory", 0)


@pytest.mark.parametrize("pool", POOLS)
def test_what_is_there_is_worked_off_and_each_runs_once(costly_harness: BrokerHarness, pool: str) -> None:
    """By a worker that starts when all is full already, and renews leases, writes events and moves retries as ever."""
    harness = costly_harness
    waiting = [harness.send("record", str(number)) for number in range(20)]
    delayed = harness.send("record", "delayed", countdown=1)
    retried, snoozed = harness.send("redeliver"), harness.send("snooze")
    long = harness.send("hold")
    with full(harness):
        harness.worker(pool, 2)
        wait_for(lambda: long in harness.started(), 60, "the long one has started")
        stays_true(lambda: harness.started().count(long) == 1, 2.5, "its lease of one second is renewed")
        harness.release()
        harness.wait_ended([long, delayed, *waiting])
        harness.wait_empty()
    assert sorted(harness.ended()) == sorted({long, delayed, *waiting})
    assert all(harness.states(run) == ["queued", "started", "succeeded"] for run in [long, *waiting])
    assert harness.states(delayed) == ["scheduled", "started", "succeeded"]
    again = ["started", "retrying"] * 2
    assert harness.states(retried) == ["queued", *again, "started", "succeeded"]
    assert harness.states(snoozed) == ["queued", *["started", "snoozed"] * 2, "started", "succeeded"]
    assert not harness.dead_letters()


@pytest.mark.parametrize("pool", POOLS)
def test_results_are_stored(costly_harness: BrokerHarness, pool: str) -> None:
    """Else what was done would fail, and with solo end its worker, and the next one."""
    harness = costly_harness
    runs = [harness.app.send_task("nothing", (number,), queue="celery", ignore_result=False) for number in range(3)]
    with full(harness):
        harness.worker(pool, 1, IGNORE_RESULTS="0")
        assert [run.get(timeout=30) for run in runs] == [0, 1, 2]
        harness.wait_empty()
    assert all(harness.states(run.id) == ["queued", "started", "succeeded"] for run in runs)


def test_a_part_of_a_chord_is_counted(valkey_harness: BrokerHarness) -> None:
    harness = valkey_harness
    nothing: Any = harness.app.tasks["nothing"]
    parts = [nothing.s(number).set(queue=queue) for number, queue in ((1, "early"), (2, "late"))]
    whole: Any = chord(parts, app=harness.app)(nothing.s().set(queue="late", ignore_result=False))
    with full(harness):
        harness.worker(name="early", queues="early", IGNORE_RESULTS="0")
        wait_for(lambda: "succeeded" in harness.states(whole.parent[0].id), 30, "the first part is done")
    harness.worker(name="late", queues="late", IGNORE_RESULTS="0")
    assert whole.get(timeout=30) == [1, 2]


def test_a_new_message_is_refused_with_a_clear_error(harness: BrokerHarness) -> None:
    with full(harness), pytest.raises(OperationalError, match="maxmemory"):
        harness.send("nothing")
    assert not harness.keys()
    assert not harness.events()
