"""Random kills under load, and many messages at once: short here, long with `make chaos`."""

import random
from datetime import UTC, datetime

import pytest

from tests.broker.harness import POOLS, BrokerHarness
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(1800)  # many processes start
SLOTS = {"prefork": 4, "threads": 25, "solo": 1}


def kill_at_random(harness: BrokerHarness, pool: str, tasks: int, kills: int) -> None:
    """Run `tasks` while a random one of three workers is killed `kills` times; every run must end, and no key stay."""
    chance = random.Random(tasks)  # noqa: S311 - no secret
    workers = [harness.worker(pool, 4, name=f"w{number}", PREFETCH="4") for number in range(3)]
    runs = {harness.send("record", "", 0.005) for _ in range(tasks)}
    for number in range(kills):
        goal = (number + chance.random()) * tasks / (kills + 1)
        wait_for(lambda goal=goal: len(harness.ended()) >= goal, 120, f"{goal:.0f} runs ended")  # type: ignore[misc]  # mypy cannot infer the lambda
        victim = chance.choice(workers)
        victim.kill()
        victim.start(wait_ready=False)
    harness.wait_ended(runs, 180)
    harness.wait_empty(60)
    finals: dict[str, list[str]] = {}
    for event in harness.events():
        finals.setdefault(event["id"], []).append(event["e"])
    assert {run for run in runs if finals[run][-1] != "succeeded"} == set()
    assert {run for run in runs if finals[run].count("succeeded") != 1} == set()


@pytest.mark.parametrize("pool", POOLS)
def test_random_kills_lose_nothing_in_short(valkey_harness: BrokerHarness, pool: str) -> None:
    kill_at_random(valkey_harness, pool, 300, 2)


@pytest.mark.chaos
@pytest.mark.parametrize("pool", POOLS)
def test_random_kills_lose_nothing(harness: BrokerHarness, pool: str) -> None:
    kill_at_random(harness, pool, 5000, 20)


def due_together(harness: BrokerHarness, pool: str, tasks: int) -> float:
    """Seconds from the common due time until the last of `tasks` has started, with two workers."""
    for number in range(2):
        harness.worker(pool, SLOTS[pool], name=f"w{number}", PREFETCH="4")
    harness.wait_listening(2)
    with harness.app.producer_or_acquire() as producer, producer.batch():
        first = harness.send("record", producer=producer, countdown=4)
        due = float(harness.app.now().timestamp() + 4)
        runs = [first, *(harness.send("record", producer=producer, eta=_moment(due)) for _ in range(tasks - 1))]
    wait_for(lambda: harness.control.counts("celery").delayed == 0, 60, "all are due")
    harness.wait_ended(runs, 120)
    starts = [float(line.split()[-1]) for line in harness.lines() if line.startswith("start ")]
    assert min(starts) >= due - 0.5
    return max(starts) - due


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_three_hundred_tasks_with_one_eta_start_within_five_seconds(valkey_harness: BrokerHarness) -> None:
    assert due_together(valkey_harness, "threads", 300) < 5


@pytest.mark.chaos
@pytest.mark.parametrize("pool", POOLS)
def test_three_thousand_tasks_with_one_eta_start_within_five_seconds(harness: BrokerHarness, pool: str) -> None:
    assert due_together(harness, pool, 3000) < 5
