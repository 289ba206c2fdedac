"""A message may come from anywhere: whatever is wrong in it ends that message only, and as a dead letter."""

import base64
from collections import Counter
from typing import Any

import kombu
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.broker.harness import BrokerHarness
from tests.broker.hostile import CASES, envelope, hostile_cases, numbered, put_raw
from tests.waiting import wait_for
from tests.workers import Worker

pytestmark = pytest.mark.timeout(300)
FOUR_POOLS = ("prefork", "threads", "solo", "custom")
LOOP_POOL = {"CELERY_CUSTOM_WORKER_POOL": "taskyard.pools.asyncio_pool:TaskPool"}


def worker_of(harness: BrokerHarness, pool: str, **options: str) -> Worker:
    """A worker in that pool; `custom` is the asyncio pool."""
    return harness.worker(pool, 2, PREFETCH="4", **options, **(LOOP_POOL if pool == "custom" else {}))


def between_good_ones(harness: BrokerHarness, hostile: dict[str, bytes], limit_seconds: float = 120) -> None:
    """Put each hostile message between two good ones: all of these run once, all of those are dead letters."""
    good = _send_around(harness, hostile)
    harness.wait_ended(good, limit_seconds)
    wait_for(
        lambda: len(harness.dead_letters()) >= len(hostile),
        limit_seconds,
        "all letters",
        lambda: _missing(harness, hostile),
    )
    letters = {line.split()[0]: line.split() for line in harness.dead_letters()}
    assert letters.keys() == hostile.keys()
    assert {run: letters[run][1] for run in hostile if letters[run][1] != "malformed"} == {}
    assert all(base64.b64decode(letters[run][3]) == payload for run, payload in hostile.items())
    assert Counter(harness.started()) == Counter(good)
    harness.wait_empty()


def _send_around(harness: BrokerHarness, hostile: dict[str, bytes]) -> list[str]:
    good, names = [], list(hostile)
    with harness.app.producer_or_acquire() as producer:
        for start in range(0, len(names), 50):
            part = names[start : start + 50]
            put_raw(harness, {name: hostile[name] for name in part})
            with producer.batch():
                good += [harness.send("record", producer=producer) for _ in part]
    return good


def _missing(harness: BrokerHarness, hostile: dict[str, bytes]) -> str:
    stored = {line.split()[0] for line in harness.dead_letters()}
    return f"without a letter: {[(run, hostile[run]) for run in hostile.keys() - stored][:3]}"


@pytest.mark.parametrize("pool", FOUR_POOLS)
def test_every_wrong_field_is_a_dead_letter_and_the_neighbours_run_once(
    costly_harness: BrokerHarness, pool: str
) -> None:
    """Each field with each hostile value, once; the worker lives, and says of none that it was discarded."""
    worker = worker_of(costly_harness, pool)
    between_good_ones(costly_harness, {run: envelope(run, case) for run, case in numbered(CASES, len(CASES), "bad")})
    assert worker.is_running
    assert "discarded" not in worker.log.read_text()


@pytest.mark.timeout(600)
def test_any_mixture_of_wrong_fields_ends_no_worker(valkey_harness: BrokerHarness) -> None:
    harness, numbers = valkey_harness, iter(range(10**6))
    worker = worker_of(harness, "prefork")

    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases=st.lists(hostile_cases, min_size=1, max_size=20))
    def mixture(cases: list[tuple[str, str, Any]]) -> None:
        harness.records.flushall()
        harness.broker.delete(f"{harness.prefix}events")
        between_good_ones(harness, {(run := f"mix-{next(numbers)}"): envelope(run, case) for case in cases})
        assert worker.is_running

    mixture()


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("pool", FOUR_POOLS)
def test_20_000_fuzzed_between_20_000_good(harness: BrokerHarness, pool: str) -> None:
    worker = worker_of(harness, pool)
    hostile = {run: envelope(run, case) for run, case in numbered(CASES, 20_000, "bad")}
    between_good_ones(harness, hostile, 1500)
    assert worker.is_running


def test_a_wrong_time_limit_published_by_plain_kombu_ends_no_worker(valkey_harness: BrokerHarness) -> None:
    """Billiard reads it long after the message was accepted, in the loop of the worker."""
    harness = valkey_harness
    worker = harness.worker("prefork", 2)
    headers = {"task": "record", "id": "hand-made", "timelimit": ["a", None]}
    with harness.app.connection_for_write() as connection:
        kombu.Producer(connection).publish([[], {"sleep": 1}, {}], routing_key="celery", headers=headers)
    (letter,) = wait_for(harness.dead_letters, 60, "it is a dead letter")
    assert letter.startswith("hand-made malformed MalformedMessageError")
    assert worker.is_running


def test_facts_that_only_the_broker_knows_are_not_taken_from_a_message(valkey_harness: BrokerHarness) -> None:
    harness = valkey_harness
    facts = {"cancelled": True, "stalls": "many", "waited_ms": [], "attempt": 1}
    hostile = harness.send("record", headers={"taskyard": facts})
    runs = [harness.send("record") for _ in range(20)]
    harness.worker("threads", 4)
    harness.wait_ended([hostile, *runs])
    harness.wait_empty()
    assert Counter(harness.started()) == Counter([hostile, *runs])
