"""One beat process and a worker: slots become runs, on time and once."""

from datetime import timedelta

import pytest

from tests.beat.beat_platform import BeatPlatform, gaps
from tests.waiting import wait_for


def test_each_slot_becomes_one_run_close_to_its_time(platform: BeatPlatform) -> None:
    platform.add("tick", expression="1")
    platform.add("cron", kind="cron", expression="*/2 * * * * *", zone="Europe/Rome")
    platform.worker()
    beat = platform.beat()
    platform.wait_led_by(beat)
    fires = platform.wait_fires(8, "published", name="tick")
    assert gaps(fires) == {timedelta(seconds=1)}
    assert {fire.slot.second % 2 for fire in platform.wait_fires(2, "published", name="cron")} == {0}
    slots = {str(fire.id): fire.slot.timestamp() for fire in fires}
    wait_for(lambda: {mark[2] for mark in platform.marks()} >= set(slots), 10, "all runs ran")
    late = [at - slots[run_id] for what, _, run_id, at in platform.marks() if what == "start" and run_id in slots]
    assert len(late) == len(slots)
    assert min(late) >= -0.01
    assert sorted(late)[len(late) // 2] < 0.5, late
    assert set(platform.enqueued().values()) == {1}


@pytest.mark.parametrize("how", ["term", "kill"])
def test_a_restart_keeps_what_was_and_fires_nothing_twice(platform: BeatPlatform, how: str) -> None:
    platform.add()
    first = platform.beat("first")
    platform.wait_fires(3, "published")
    if how == "term":
        first.term()
        assert first.wait_ended() == 0
        assert platform.leader() is None
    else:
        first.kill()
    before = platform.schedule()
    assert before.last_slot is not None
    second = platform.beat("second")
    platform.wait_led_by(second)
    platform.wait_fires(before.fired + 3, "published")
    assert platform.schedule().fired > before.fired
    assert set(platform.enqueued().values()) == {1}


def test_a_one_off_fires_once_and_is_done(platform: BeatPlatform) -> None:
    platform.add("tick")
    schedule = platform.add(
        "once", kind="once", expression=(platform.schedule("tick").created_at + timedelta(seconds=4)).isoformat()
    )
    platform.beat()
    fires = platform.wait_fires(1, "published", name="once")
    assert fires[0].slot.isoformat() == schedule.expression
    platform.wait_fires(4, "published", name="tick")
    assert len(platform.fires("once")) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_stock_transport_fires_as_well(platform: BeatPlatform) -> None:
    platform.add()
    platform.worker(TASKYARD_TRANSPORT="redis")
    platform.beat(TASKYARD_TRANSPORT="redis")
    fires = platform.wait_fires(4, "published")

    def started() -> list[str]:
        return [run_id for what, _, run_id, _ in platform.marks() if what == "start"]

    wait_for(lambda: set(started()) >= {str(fire.id) for fire in fires}, 20, "all runs ran")
    assert len(started()) == len(set(started()))
