"""What a producer sees: duplicates by name, batches in one call, an error instead of silence."""

import pytest
from kombu.exceptions import OperationalError

from broker.duplicates import collect_duplicates
from tests.broker.bed import Bed


def test_a_duplicate_tells_the_producer_which_run_is_there(bed: Bed) -> None:
    header = {"taskyard": {"dedup": {"key": "k", "mode": "until_done", "ttl_ms": None}}}
    first = bed.send("record", headers=header)
    with collect_duplicates() as duplicates:
        second = bed.send("record", headers=header)
        other = bed.send("record")
    assert duplicates == {second: first}
    assert [peeked.run_id for peeked in bed.control.peek("celery")] == [first, other]


def test_a_batch_stores_all_in_order_and_tells_of_duplicates(bed: Bed) -> None:
    header = {"taskyard": {"dedup": {"key": "k", "mode": "until_done", "ttl_ms": None}}}
    with bed.app.producer_or_acquire() as producer, collect_duplicates() as duplicates:
        with producer.batch(max_size=10):
            runs = [bed.send("record", producer=producer) for _ in range(25)]
            first, second = (bed.send("record", producer=producer, headers=header) for _ in range(2))
        assert duplicates == {second: first}
    assert [peeked.run_id for peeked in bed.control.peek("celery", count=100)] == [*runs, first]


def test_a_task_without_priority_is_normal_and_an_explicit_zero_is_last(bed: Bed) -> None:
    zero, plain, nine = bed.send("record", priority=0), bed.send("record"), bed.send("record", priority=9)
    assert [(one.run_id, one.priority) for one in bed.control.peek("celery")] == [(nine, 9), (plain, 5), (zero, 0)]


def test_a_producer_without_a_broker_gets_an_error(bed: Bed) -> None:
    bed.send("record")
    bed.server.stop()
    with pytest.raises(OperationalError):
        bed.send("record")


def test_headers_of_the_platform_reach_put(bed: Bed) -> None:
    run = bed.send("record", headers={"taskyard": {"group_key": "g", "attempt": 3, "args": {"id": 1}}})
    (peeked,) = bed.control.peek("celery")
    assert (peeked.run_id, peeked.group_key, peeked.attempt) == (run, "g", 3)
    assert '"args":{"id":1}' in bed.events(run)[0]["d"]
