"""Random kills under load, and many messages at once: short here, long with `make chaos`."""

import random
from datetime import UTC, datetime

import pytest

from tests.broker.bed import POOLS, Bed
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(1800)  # many processes start
SLOTS = {"prefork": 4, "threads": 25, "solo": 1}


def kill_at_random(bed: Bed, pool: str, tasks: int, kills: int) -> None:
    """Run `tasks` while a random one of three workers is killed `kills` times; every run must end, and no key stay."""
    chance = random.Random(tasks)  # noqa: S311 - no secret
    workers = [bed.worker(pool, 4, name=f"w{number}", PREFETCH="4") for number in range(3)]
    runs = {bed.send("record", "", 0.005) for _ in range(tasks)}
    for number in range(kills):
        goal = (number + chance.random()) * tasks / (kills + 1)
        wait_for(lambda goal=goal: len(bed.ended()) >= goal, 120, f"{goal:.0f} runs ended")  # type: ignore[misc]  # mypy cannot infer the lambda
        victim = chance.choice(workers)
        victim.kill()
        victim.start(wait_ready=False)
    bed.wait_ended(runs, 180)
    bed.wait_empty(60)
    finals: dict[str, list[str]] = {}
    for event in bed.events():
        finals.setdefault(event["id"], []).append(event["e"])
    assert {run for run in runs if finals[run][-1] != "succeeded"} == set()
    assert {run for run in runs if finals[run].count("succeeded") != 1} == set()


@pytest.mark.parametrize("pool", POOLS)
def test_random_kills_lose_nothing_in_short(valkey_bed: Bed, pool: str) -> None:
    kill_at_random(valkey_bed, pool, 300, 2)


@pytest.mark.chaos
@pytest.mark.parametrize("pool", POOLS)
def test_random_kills_lose_nothing(bed: Bed, pool: str) -> None:
    kill_at_random(bed, pool, 5000, 20)


def due_together(bed: Bed, pool: str, tasks: int) -> float:
    """Seconds from the common due time until the last of `tasks` has started, with two workers."""
    for number in range(2):
        bed.worker(pool, SLOTS[pool], name=f"w{number}", PREFETCH="4")
    bed.wait_listening(2)
    with bed.app.producer_or_acquire() as producer, producer.batch():
        first = bed.send("record", producer=producer, countdown=4)
        due = float(bed.app.now().timestamp() + 4)
        runs = [first, *(bed.send("record", producer=producer, eta=_moment(due)) for _ in range(tasks - 1))]
    wait_for(lambda: bed.control.counts("celery").delayed == 0, 60, "all are due")
    bed.wait_ended(runs, 120)
    starts = [float(line.split()[-1]) for line in bed.lines() if line.startswith("start ")]
    assert min(starts) >= due - 0.5
    return max(starts) - due


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def test_three_hundred_tasks_with_one_eta_start_within_five_seconds(valkey_bed: Bed) -> None:
    assert due_together(valkey_bed, "threads", 300) < 5


@pytest.mark.chaos
@pytest.mark.parametrize("pool", POOLS)
def test_three_thousand_tasks_with_one_eta_start_within_five_seconds(bed: Bed, pool: str) -> None:
    assert due_together(bed, pool, 3000) < 5
