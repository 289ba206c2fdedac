"""What a producer sees: duplicates by name, batches in one call, an error instead of silence."""

import json
import math
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from taskyard.broker.protocol.json_codec import dump, load
from taskyard.broker.transport.dedup_reports import collect_duplicates
from taskyard.broker.untyped import BatchPublishError
from tests.broker.harness import BrokerHarness


def test_a_duplicate_tells_the_producer_which_run_is_there(harness: BrokerHarness) -> None:
    header = {"taskyard": {"dedup": {"key": "k", "mode": "until_done", "ttl_ms": None}}}
    first = harness.send("record", headers=header)
    with collect_duplicates() as duplicates:
        second = harness.send("record", headers=header)
        other = harness.send("record")
    assert duplicates == {second: first}
    assert [peeked.run_id for peeked in harness.control.peek("celery")] == [first, other]


def test_a_batch_stores_all_in_order_and_tells_of_duplicates(harness: BrokerHarness) -> None:
    header = {"taskyard": {"dedup": {"key": "k", "mode": "until_done", "ttl_ms": None}}}
    with harness.app.producer_or_acquire() as producer, collect_duplicates() as duplicates:
        with producer.batch(max_size=10):
            runs = [harness.send("record", producer=producer) for _ in range(25)]
            first, second = (harness.send("record", producer=producer, headers=header) for _ in range(2))
        assert duplicates == {second: first}
    assert [peeked.run_id for peeked in harness.control.peek("celery", count=100)] == [*runs, first]


def test_a_server_that_forgot_the_scripts_still_gets_every_call_of_a_batch(harness: BrokerHarness) -> None:
    with harness.app.producer_or_acquire() as producer, producer.batch(max_size=2):
        runs = [harness.send("record", producer=producer) for _ in range(3)]
        harness.broker.script_flush()
        runs += [harness.send("record", producer=producer) for _ in range(4)]
    assert [peeked.run_id for peeked in harness.control.peek("celery")] == runs


def test_an_abandoned_batch_leaves_what_was_sent_and_its_answers_to_nobody(harness: BrokerHarness) -> None:
    runs: list[str] = []

    def fail_after_two_and_one(producer: Any) -> None:
        with producer.batch(max_size=2):
            runs.extend(harness.send("record", producer=producer) for _ in range(2))  # on their way at once
            harness.send("record", producer=producer)  # only collected
            raise ZeroDivisionError

    with harness.app.producer_or_acquire() as producer:
        with pytest.raises(ZeroDivisionError):
            fail_after_two_and_one(producer)
        runs.append(harness.send("record", producer=producer))
    assert [peeked.run_id for peeked in harness.control.peek("celery")] == runs


def test_a_batch_whose_broker_dies_says_so_and_the_next_one_works(valkey_harness: BrokerHarness) -> None:
    harness = valkey_harness

    runs: list[str] = []

    def send(count: int, killed_after: int = -1) -> None:
        with harness.app.producer_or_acquire() as producer, producer.batch(max_size=2):
            for number in range(count):
                runs.append(harness.send("record", producer=producer))
                if number == killed_after:
                    harness.server.kill()

    with pytest.raises(BatchPublishError):
        send(6, killed_after=3)  # the first call was answered before the second was sent
    harness.server.start()
    before = [peeked.run_id for peeked in harness.control.peek("celery")]
    assert before in (runs[:2], runs[:4])
    refused = len(runs)
    send(3)
    assert [peeked.run_id for peeked in harness.control.peek("celery")] == before + runs[refused:]


def test_leases_can_be_ended_when_the_channel_that_made_them_is_closed_already(harness: BrokerHarness) -> None:
    """A worker that is ended right after its start has sent nothing yet."""
    options = {**harness.app.conf.broker_transport_options, "lease_ms": 4321}
    with harness.app.connection_for_write(transport_options=options) as connection:
        channel: Any = connection.default_channel
        leases = channel.leases
    leases.flush_and_wait()
    leases.renew()


@pytest.mark.parametrize("value", [{"a": [1, "ä", None]}, "lone \ud800", [10**30, 1.5], {"x": {"y": "\x00"}}])
def test_json_comes_back_as_it_was(value: Any) -> None:
    assert load(dump(value)) == json.loads(dump(value)) == value
    assert load(json.dumps(value)) == load(json.dumps(value, ensure_ascii=False)) == value


def test_what_is_no_json_becomes_text_and_broken_json_is_an_error() -> None:
    assert load(dump({"x": object})) == {"x": str(object)}
    assert math.isnan(load(dump(math.nan)))
    for broken in ("", "{", b"\xff", "[" * 100_000):
        with pytest.raises((ValueError, RecursionError)):
            load(broken)


def test_a_task_without_priority_is_normal_and_an_explicit_zero_is_last(harness: BrokerHarness) -> None:
    zero, plain, nine = harness.send("record", priority=0), harness.send("record"), harness.send("record", priority=9)
    assert [(one.run_id, one.priority) for one in harness.control.peek("celery")] == [(nine, 9), (plain, 5), (zero, 0)]


def test_a_producer_without_a_broker_gets_an_error(harness: BrokerHarness) -> None:
    harness.send("record")
    harness.server.stop()
    with pytest.raises(OperationalError):
        harness.send("record")


def test_headers_of_the_platform_reach_put(harness: BrokerHarness) -> None:
    run = harness.send("record", headers={"taskyard": {"group_key": "g", "attempt": 3, "args": {"id": 1}}})
    (peeked,) = harness.control.peek("celery")
    assert (peeked.run_id, peeked.group_key, peeked.attempt) == (run, "g", 3)
    assert '"args":{"id":1}' in harness.events(run)[0]["d"]
