"""A server that has reached `maxmemory` refuses new messages and nothing else: what is there is worked off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import chord
from kombu.exceptions import OperationalError

from tests.broker.bed import POOLS, Bed
from tests.waiting import stays_true, wait_for


@contextmanager
def full(bed: Bed) -> Iterator[None]:
    """Not a byte more is to be had."""
    bed.broker.config_set("maxmemory", 1)
    try:
        yield
    finally:
        bed.broker.config_set("maxmemory", 0)


@pytest.mark.parametrize("pool", POOLS)
def test_what_is_there_is_worked_off_and_each_runs_once(costly_bed: Bed, pool: str) -> None:
    """By a worker that starts when all is full already, and renews leases, writes events and moves retries as ever."""
    bed = costly_bed
    waiting = [bed.send("record", str(number)) for number in range(20)]
    delayed = bed.send("record", "delayed", countdown=1)
    retried, snoozed = bed.send("redeliver"), bed.send("snooze")
    long = bed.send("hold")
    with full(bed):
        bed.worker(pool, 2)
        wait_for(lambda: long in bed.started(), 60, "the long one has started")
        stays_true(lambda: bed.started().count(long) == 1, 2.5, "its lease of one second is renewed")
        bed.release()
        bed.wait_ended([long, delayed, *waiting])
        bed.wait_empty()
    assert sorted(bed.ended()) == sorted({long, delayed, *waiting})
    assert all(bed.states(run) == ["queued", "started", "succeeded"] for run in [long, *waiting])
    assert bed.states(delayed) == ["scheduled", "started", "succeeded"]
    again = ["started", "retrying"] * 2
    assert bed.states(retried) == ["queued", *again, "started", "succeeded"]
    assert bed.states(snoozed) == ["queued", *["started", "snoozed"] * 2, "started", "succeeded"]
    assert not bed.letters()


@pytest.mark.parametrize("pool", POOLS)
def test_results_are_stored(costly_bed: Bed, pool: str) -> None:
    """Else what was done would fail, and with solo end its worker, and the next one."""
    bed = costly_bed
    runs = [bed.app.send_task("nothing", (number,), queue="celery", ignore_result=False) for number in range(3)]
    with full(bed):
        bed.worker(pool, 1, IGNORE_RESULTS="0")
        assert [run.get(timeout=30) for run in runs] == [0, 1, 2]
        bed.wait_empty()
    assert all(bed.states(run.id) == ["queued", "started", "succeeded"] for run in runs)


def test_a_part_of_a_chord_is_counted(valkey_bed: Bed) -> None:
    bed = valkey_bed
    nothing: Any = bed.app.tasks["nothing"]
    parts = [nothing.s(number).set(queue=queue) for number, queue in ((1, "early"), (2, "late"))]
    whole: Any = chord(parts, app=bed.app)(nothing.s().set(queue="late", ignore_result=False))
    with full(bed):
        bed.worker(name="early", queues="early", IGNORE_RESULTS="0")
        wait_for(lambda: "succeeded" in bed.states(whole.parent[0].id), 30, "the first part is done")
    bed.worker(name="late", queues="late", IGNORE_RESULTS="0")
    assert whole.get(timeout=30) == [1, 2]


def test_a_new_message_is_refused_with_a_clear_error(bed: Bed) -> None:
    with full(bed), pytest.raises(OperationalError, match="maxmemory"):
        bed.send("nothing")
    assert not bed.keys()
    assert not bed.events()
