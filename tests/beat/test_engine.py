"""The engine on real servers with a turned clock: outages, policies, overlap, repair, changes while it runs."""

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from taskyard.beat import catalog
from taskyard.beat.engine.store import BeatStore
from taskyard.beat.models import Schedule
from taskyard.history.models import Run
from taskyard.history.operator_log import Operation, record_operation
from tests.beat.desk import EAGER, START, Desk, play


def test_each_second_has_one_fire_and_one_message(desk: Desk) -> None:
    desk.plant()
    engine = desk.engine()
    engine.tick()
    play(desk, engine, 5)
    assert desk.outcomes() == [(n, "published") for n in range(1, 6)]
    assert desk.enqueued() == {str(fire.id): 1 for fire in desk.fires()}
    assert desk.schedule().fired == 5
    assert engine.metrics.fires["published"] == 5


@pytest.mark.parametrize(
    ("misfire", "limit", "fired", "missed"),
    [("skip", 1, [60], 5), ("run_once", 1, [60], 5), ("run_all", 3, [30, 40, 50, 60], 2)],
)
def test_slots_of_an_outage_follow_the_policy(
    desk: Desk, misfire: str, limit: int, fired: list[float], missed: int
) -> None:
    """One minute without any beat process; the slot at its very end is on time."""
    desk.plant(expression="10", misfire=misfire, misfire_limit=limit)
    desk.clock.turn(60.2)
    desk.engine().tick()
    assert desk.slots() == fired
    assert sum(fire.slots for fire in desk.fires("job", "missed")) == missed
    assert desk.schedule().missed == missed


def test_a_schedule_that_skips_overlaps_never_has_two_runs(desk: Desk) -> None:
    """Each run takes five seconds: the slots in between are counted, and the next one comes as soon as it may."""
    desk.plant(overlap="skip")
    engine = desk.engine(ahead=3)
    engine.tick()
    for second in range(1, 16):
        play(desk, engine, 1)
        running = [fire for fire in desk.fires("job", "published") if desk.client.exists(f"taskyard:message:{fire.id}")]
        assert len(running) <= 1
        if second % 5 == 0:
            desk.finish(fire.id for fire in running)
    assert desk.slots() == [1, 6, 11]
    assert desk.schedule().skipped == 12
    assert len(desk.slots(state="skipped")) == 12


@pytest.mark.parametrize("recorded", ["nothing", "succeeded"])
def test_overlap_is_decided_by_the_broker_whatever_the_history_says(desk: Desk, recorded: str) -> None:
    """A run of two hours that the history has never seen, or wrongly calls done, still holds the next one back."""
    desk.plant(expression="3600", overlap="skip")
    engine = desk.engine()
    desk.clock.turn(3600)
    engine.tick()
    first = desk.newest()
    if recorded == "succeeded":
        with desk.database.session() as session, session.begin():
            session.add(Run(id=str(first.id), task="tests.mark", queue="maintenance", state="succeeded"))
    desk.clock.turn(7200)
    engine.tick()
    assert desk.slots() == [3600], "its message is still in the broker"
    desk.finish([first.id])
    desk.clock.turn(3600)
    engine.tick()
    assert desk.slots() == [3600, 14_400]


def test_a_catch_up_of_a_schedule_that_skips_overlaps_is_one_run(desk: Desk) -> None:
    desk.plant(overlap="skip", misfire="run_all", misfire_limit=10)
    desk.clock.turn(6)
    desk.engine().tick()
    assert desk.slots() == [6]
    assert desk.slots(state="skipped") == [1, 2, 3, 4, 5]


def test_slots_are_enqueued_ahead_and_delayed_until_they_are_due(desk: Desk) -> None:
    desk.plant(expression="10")
    desk.clock.turn(4)
    engine = desk.engine(ahead=7)
    engine.tick()
    assert desk.slots() == [10]
    [(_, due_ms)] = desk.client.zrange("taskyard:delayed:celery", 0, -1, withscores=True)
    assert due_ms == (START + timedelta(seconds=10)).timestamp() * 1000
    assert desk.newest().lag_ms == 0


def test_what_was_enqueued_ahead_is_taken_back_when_the_schedule_stops(desk: Desk) -> None:
    desk.plant(expression="10")
    desk.plant("other", expression="10")
    desk.clock.turn(4)
    engine = desk.engine(ahead=7)
    engine.tick()
    desk.change(catalog.pause, "job", "tests", "it hurts")
    engine.tick()
    assert desk.newest().state == "withdrawn"
    assert "tests" not in str(desk.client.hget(f"taskyard:message:{desk.newest('other').id}", "c"))
    assert desk.client.hget(f"taskyard:message:{desk.newest().id}", "c")
    assert desk.newest("other").state == "published"


def test_a_fire_that_was_written_but_not_sent_is_sent_by_the_next_leader(desk: Desk) -> None:
    """The leader died between its commit and its first message."""
    desk.plant(expression="10", misfire="skip")
    desk.clock.turn(10)
    engine = desk.engine()
    engine._firing._publish = lambda *_: None  # type: ignore[method-assign]  # it dies here
    engine.tick()
    assert desk.outcomes() == [(10, "pending")]
    engine.close()
    desk.clock.turn(5)
    desk.engine().tick()
    assert desk.outcomes() == [(10, "published")]
    assert desk.newest().lag_ms == 5000
    assert desk.enqueued() == {str(desk.newest().id): 1}


def test_a_full_broker_delays_and_never_doubles(desk: Desk) -> None:
    desk.plant(misfire="run_all", misfire_limit=10)
    engine = desk.engine()
    engine.tick()
    desk.client.config_set("maxmemory", 1)
    try:
        play(desk, engine, 3)
        assert not desk.enqueued()
    finally:
        desk.client.config_set("maxmemory", 0)
    play(desk, engine, 10)
    assert desk.outcomes() == [(n, "published") for n in range(1, 14)]
    assert desk.enqueued() == {str(fire.id): 1 for fire in desk.fires()}


def test_a_message_that_was_sent_but_not_noted_is_not_sent_twice(desk: Desk) -> None:
    """The leader died after its message, before its note; a worker has even done the run in between."""
    desk.plant(expression="10")
    desk.clock.turn(10)
    engine = desk.engine()
    store = engine._store
    engine._firing._store = type("Dying", (BeatStore,), {"published": lambda *_: None})(desk.database.engine)
    engine.tick()
    assert desk.outcomes() == [(10, "pending")]
    engine._firing._store = store
    desk.finish([desk.newest().id])
    desk.clock.turn(5)
    engine.tick()
    assert desk.outcomes() == [(10, "published")]
    assert desk.enqueued() == {str(desk.newest().id): 1}


def test_slots_whose_commit_was_not_heard_of_are_counted_once(desk: Desk) -> None:
    """The connection broke between the database's commit and its answer; the next decision knows what is settled."""
    desk.plant(misfire="run_once")
    engine = desk.engine(pace=replace(EAGER, patience=timedelta(seconds=60)))
    engine.tick()
    record = engine._store.record

    def unheard(*words: Any) -> set[UUID]:
        record(*words)
        raise OperationalError("COMMIT", None, ConnectionResetError())

    engine._store.record = unheard  # type: ignore[method-assign, assignment]
    desk.clock.turn(100)
    engine.tick()
    engine._store.record = record  # type: ignore[method-assign]
    play(desk, engine, 4)
    engine.tick()
    desk.check_books()
    assert desk.outcomes() == [(98, "missed"), *((second, "published") for second in range(99, 105))]
    assert (desk.schedule().fired, desk.schedule().missed) == (6, 98)


def test_a_leader_whose_time_has_passed_writes_nothing(desk: Desk) -> None:
    """It believes to lead, and the database knows better: as after a long pause in the middle of a tick."""
    desk.plant()
    old, new = desk.engine(), desk.engine()
    old.tick()
    desk.client.delete("taskyard:{beat}:leader")
    new.tick()
    old._lease._held_until = old._lease._asked_at = time.monotonic() + 1000
    play(desk, old, 3)
    assert desk.fires() == []
    assert not old.metrics.is_leader
    play(desk, new, 1)
    assert {fire.fence for fire in desk.fires()} == {2}


def test_changes_are_followed_with_the_next_look(desk: Desk) -> None:
    engine = desk.engine()
    engine.tick()
    desk.plant()
    play(desk, engine, 2)
    assert desk.slots() == [1, 2]
    desk.change(catalog.pause, "job", "tests", None)
    play(desk, engine, 2)
    assert desk.slots() == [1, 2]
    desk.change(catalog.resume, "job", "tests")
    desk.set("job", cursor=desk.clock.moment)
    play(desk, engine, 2)
    assert desk.slots() == [1, 2, 5, 6]
    desk.change(catalog.edit, "job", "tests", expression="3")
    play(desk, engine, 6)
    assert desk.slots() == [1, 2, 5, 6, 9, 12]
    gone = desk.schedule().id
    desk.change(catalog.remove, "job")
    play(desk, engine, 6)
    with desk.database.session() as session:
        assert session.get(Schedule, gone) is None
    assert engine.metrics.schedules == 0


def test_a_decision_on_an_outdated_definition_is_taken_again(desk: Desk) -> None:
    """The change comes after the leader's last look and before its write."""
    desk.plant()
    engine = desk.engine()
    engine.tick()
    desk.clock.turn(1)
    looked = engine._store.changes
    engine._store.changes = lambda: engine._changes  # type: ignore[method-assign]  # it does not see it yet
    desk.change(catalog.pause, "job", "tests", None)
    assert engine.tick() == 0
    assert desk.fires() == []
    engine._store.changes = looked  # type: ignore[method-assign]  # now it does
    engine.tick()
    assert desk.fires() == []


def test_a_schedule_whose_task_is_gone_is_refused_and_the_others_go_on(desk: Desk) -> None:
    desk.plant()
    desk.plant("gone")
    desk.set("gone", task="tests.no_longer_there")
    desk.plant("broken")
    desk.set("broken", expression="hand-made", kind="cron")
    engine = desk.engine()
    engine.tick()
    play(desk, engine, 2)
    assert desk.slots() == [1, 2]
    assert desk.slots("gone", state="refused") == [1, 2]
    assert "unknown task" in str(desk.newest("gone").error)
    assert desk.fires("broken") == []


def test_old_fires_are_deleted(desk: Desk) -> None:
    desk.plant(expression="3600", misfire="run_all", misfire_limit=100)
    engine = desk.engine(retention=1)
    engine.tick()
    for _ in range(30):
        desk.clock.turn(3600)
        engine.tick()
    assert 23 <= len(desk.fires()) <= 25
    assert desk.schedule().fired == 30


def test_the_operator_log_is_written_with_the_change_or_not_at_all(desk: Desk) -> None:
    desk.plant()
    with desk.database.session() as session, session.begin():
        catalog.pause(session, "job", "tests", "why not")
        record_operation(session, "schedules pause", "job", reason="why not")
    with desk.database.session() as session:
        catalog.resume(session, "job", "tests")
        record_operation(session, "schedules resume", "job")
        session.rollback()
    with desk.database.session() as session:
        assert [(row.verb, row.target, row.reason) for row in session.exec(select(Operation)).all()] == [
            ("schedules pause", "job", "why not")
        ]
