"""One beat process and a worker: slots become runs, on time and once."""

from datetime import timedelta

import pytest

from tests.beat.stage import Stage, gaps
from tests.waiting import wait_for


def test_each_slot_becomes_one_run_close_to_its_time(stage: Stage) -> None:
    stage.add("tick", expression="1")
    stage.add("cron", kind="cron", expression="*/2 * * * * *", zone="Europe/Rome")
    stage.worker()
    beat = stage.beat()
    stage.wait_led_by(beat)
    fires = stage.wait_fires(8, "published", name="tick")
    assert gaps(fires) == {timedelta(seconds=1)}
    assert {fire.slot.second % 2 for fire in stage.wait_fires(2, "published", name="cron")} == {0}
    slots = {str(fire.id): fire.slot.timestamp() for fire in fires}
    wait_for(lambda: {mark[2] for mark in stage.marks()} >= set(slots), 10, "all runs ran")
    late = [at - slots[run_id] for what, _, run_id, at in stage.marks() if what == "start" and run_id in slots]
    assert len(late) == len(slots)
    assert min(late) >= -0.01
    assert sorted(late)[len(late) // 2] < 0.5, late
    assert set(stage.enqueued().values()) == {1}


@pytest.mark.parametrize("how", ["term", "kill"])
def test_a_restart_keeps_what_was_and_fires_nothing_twice(stage: Stage, how: str) -> None:
    stage.add()
    first = stage.beat("first")
    stage.wait_fires(3, "published")
    if how == "term":
        first.term()
        assert first.wait_ended() == 0
        assert stage.leader() is None
    else:
        first.kill()
    before = stage.schedule()
    assert before.last_slot is not None
    second = stage.beat("second")
    stage.wait_led_by(second)
    stage.wait_fires(before.fired + 3, "published")
    assert stage.schedule().fired > before.fired
    assert set(stage.enqueued().values()) == {1}


def test_a_one_off_fires_once_and_is_done(stage: Stage) -> None:
    stage.add("tick")
    schedule = stage.add(
        "once", kind="once", expression=(stage.schedule("tick").created_at + timedelta(seconds=4)).isoformat()
    )
    stage.beat()
    fires = stage.wait_fires(1, "published", name="once")
    assert fires[0].slot.isoformat() == schedule.expression
    stage.wait_fires(4, "published", name="tick")
    assert len(stage.fires("once")) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_the_stock_transport_fires_as_well(stage: Stage) -> None:
    stage.add()
    stage.worker(TASKYARD_TRANSPORT="redis")
    stage.beat(TASKYARD_TRANSPORT="redis")
    fires = stage.wait_fires(4, "published")

    def started() -> list[str]:
        return [run_id for what, _, run_id, _ in stage.marks() if what == "start"]

    wait_for(lambda: set(started()) >= {str(fire.id) for fire in fires}, 20, "all runs ran")
    assert len(started()) == len(set(started()))
