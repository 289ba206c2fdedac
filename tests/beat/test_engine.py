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
from tests.beat.simulation import EAGER, START, BeatSimulation, play


def test_each_second_has_one_fire_and_one_message(simulation: BeatSimulation) -> None:
    simulation.plant()
    engine = simulation.engine()
    engine.tick()
    play(simulation, engine, 5)
    assert simulation.outcomes() == [(n, "published") for n in range(1, 6)]
    assert simulation.enqueued() == {str(fire.id): 1 for fire in simulation.fires()}
    assert simulation.schedule().fired == 5
    assert engine.metrics.fires["published"] == 5


@pytest.mark.parametrize(
    ("misfire", "limit", "fired", "missed"),
    [("skip", 1, [60], 5), ("run_once", 1, [60], 5), ("run_all", 3, [30, 40, 50, 60], 2)],
)
def test_slots_of_an_outage_follow_the_policy(
    simulation: BeatSimulation, misfire: str, limit: int, fired: list[float], missed: int
) -> None:
    """One minute without any beat process; the slot at its very end is on time."""
    simulation.plant(expression="10", misfire=misfire, misfire_limit=limit)
    simulation.clock.turn(60.2)
    simulation.engine().tick()
    assert simulation.slots() == fired
    assert sum(fire.slots for fire in simulation.fires("job", "missed")) == missed
    assert simulation.schedule().missed == missed


def test_a_schedule_that_skips_overlaps_never_has_two_runs(simulation: BeatSimulation) -> None:
    """Each run takes five seconds: the slots in between are counted, and the next one comes as soon as it may."""
    simulation.plant(overlap="skip")
    engine = simulation.engine(ahead=3)
    engine.tick()
    for second in range(1, 16):
        play(simulation, engine, 1)
        running = [
            fire
            for fire in simulation.fires("job", "published")
            if simulation.client.exists(f"taskyard:message:{fire.id}")
        ]
        assert len(running) <= 1
        if second % 5 == 0:
            simulation.finish(fire.id for fire in running)
    assert simulation.slots() == [1, 6, 11]
    assert simulation.schedule().skipped == 12
    assert len(simulation.slots(state="skipped")) == 12


@pytest.mark.parametrize("recorded", ["nothing", "succeeded"])
def test_overlap_is_decided_by_the_broker_whatever_the_history_says(simulation: BeatSimulation, recorded: str) -> None:
    """A run of two hours that the history has never seen, or wrongly calls done, still holds the next one back."""
    simulation.plant(expression="3600", overlap="skip")
    engine = simulation.engine()
    simulation.clock.turn(3600)
    engine.tick()
    first = simulation.newest()
    if recorded == "succeeded":
        with simulation.database.session() as session, session.begin():
            session.add(Run(id=str(first.id), task="tests.mark", queue="maintenance", state="succeeded"))
    simulation.clock.turn(7200)
    engine.tick()
    assert simulation.slots() == [3600], "its message is still in the broker"
    simulation.finish([first.id])
    simulation.clock.turn(3600)
    engine.tick()
    assert simulation.slots() == [3600, 14_400]


def test_a_catch_up_of_a_schedule_that_skips_overlaps_is_one_run(simulation: BeatSimulation) -> None:
    simulation.plant(overlap="skip", misfire="run_all", misfire_limit=10)
    simulation.clock.turn(6)
    simulation.engine().tick()
    assert simulation.slots() == [6]
    assert simulation.slots(state="skipped") == [1, 2, 3, 4, 5]


def test_slots_are_enqueued_ahead_and_delayed_until_they_are_due(simulation: BeatSimulation) -> None:
    simulation.plant(expression="10")
    simulation.clock.turn(4)
    engine = simulation.engine(ahead=7)
    engine.tick()
    assert simulation.slots() == [10]
    [(_, due_ms)] = simulation.client.zrange("taskyard:delayed:celery", 0, -1, withscores=True)
    assert due_ms == (START + timedelta(seconds=10)).timestamp() * 1000
    assert simulation.newest().lag_ms == 0


def test_what_was_enqueued_ahead_is_taken_back_when_the_schedule_stops(simulation: BeatSimulation) -> None:
    simulation.plant(expression="10")
    simulation.plant("other", expression="10")
    simulation.clock.turn(4)
    engine = simulation.engine(ahead=7)
    engine.tick()
    simulation.change(catalog.pause, "job", "tests", "it hurts")
    engine.tick()
    assert simulation.newest().state == "withdrawn"
    assert "tests" not in str(simulation.client.hget(f"taskyard:message:{simulation.newest('other').id}", "c"))
    assert simulation.client.hget(f"taskyard:message:{simulation.newest().id}", "c")
    assert simulation.newest("other").state == "published"


def test_a_fire_that_was_written_but_not_sent_is_sent_by_the_next_leader(simulation: BeatSimulation) -> None:
    """The leader died between its commit and its first message."""
    simulation.plant(expression="10", misfire="skip")
    simulation.clock.turn(10)
    engine = simulation.engine()
    engine._firing._publish = lambda *_: None  # type: ignore[method-assign]  # it dies here
    engine.tick()
    assert simulation.outcomes() == [(10, "pending")]
    engine.close()
    simulation.clock.turn(5)
    simulation.engine().tick()
    assert simulation.outcomes() == [(10, "published")]
    assert simulation.newest().lag_ms == 5000
    assert simulation.enqueued() == {str(simulation.newest().id): 1}


def test_a_full_broker_delays_and_never_doubles(simulation: BeatSimulation) -> None:
    simulation.plant(misfire="run_all", misfire_limit=10)
    engine = simulation.engine()
    engine.tick()
    simulation.client.config_set("maxmemory", 1)
    try:
        play(simulation, engine, 3)
        assert not simulation.enqueued()
    finally:
        simulation.client.config_set("maxmemory", 0)
    play(simulation, engine, 10)
    assert simulation.outcomes() == [(n, "published") for n in range(1, 14)]
    assert simulation.enqueued() == {str(fire.id): 1 for fire in simulation.fires()}


def test_a_message_that_was_sent_but_not_noted_is_not_sent_twice(simulation: BeatSimulation) -> None:
    """The leader died after its message, before its note; a worker has even done the run in between."""
    simulation.plant(expression="10")
    simulation.clock.turn(10)
    engine = simulation.engine()
    store = engine._store
    engine._firing._store = type("Dying", (BeatStore,), {"published": lambda *_: None})(simulation.database.engine)
    engine.tick()
    assert simulation.outcomes() == [(10, "pending")]
    engine._firing._store = store
    simulation.finish([simulation.newest().id])
    simulation.clock.turn(5)
    engine.tick()
    assert simulation.outcomes() == [(10, "published")]
    assert simulation.enqueued() == {str(simulation.newest().id): 1}


def test_slots_whose_commit_was_not_heard_of_are_counted_once(simulation: BeatSimulation) -> None:
    """The connection broke between the database's commit and its answer; the next decision knows what is settled."""
    simulation.plant(misfire="run_once")
    engine = simulation.engine(pace=replace(EAGER, patience=timedelta(seconds=60)))
    engine.tick()
    record = engine._store.record

    def unheard(*words: Any) -> set[UUID]:
        record(*words)
        raise OperationalError("COMMIT", None, ConnectionResetError())

    engine._store.record = unheard  # type: ignore[method-assign, assignment]
    simulation.clock.turn(100)
    engine.tick()
    engine._store.record = record  # type: ignore[method-assign]
    play(simulation, engine, 4)
    engine.tick()
    simulation.check_books()
    assert simulation.outcomes() == [(98, "missed"), *((second, "published") for second in range(99, 105))]
    assert (simulation.schedule().fired, simulation.schedule().missed) == (6, 98)


def test_a_leader_whose_time_has_passed_writes_nothing(simulation: BeatSimulation) -> None:
    """It believes to lead, and the database knows better: as after a long pause in the middle of a tick."""
    simulation.plant()
    old, new = simulation.engine(), simulation.engine()
    old.tick()
    simulation.client.delete("taskyard:{beat}:leader")
    new.tick()
    old._lease._held_until = old._lease._asked_at = time.monotonic() + 1000
    play(simulation, old, 3)
    assert simulation.fires() == []
    assert not old.metrics.is_leader
    play(simulation, new, 1)
    assert {fire.fence for fire in simulation.fires()} == {2}


def test_changes_are_followed_with_the_next_look(simulation: BeatSimulation) -> None:
    engine = simulation.engine()
    engine.tick()
    simulation.plant()
    play(simulation, engine, 2)
    assert simulation.slots() == [1, 2]
    simulation.change(catalog.pause, "job", "tests", None)
    play(simulation, engine, 2)
    assert simulation.slots() == [1, 2]
    simulation.change(catalog.resume, "job", "tests")
    simulation.set("job", cursor=simulation.clock.moment)
    play(simulation, engine, 2)
    assert simulation.slots() == [1, 2, 5, 6]
    simulation.change(catalog.edit, "job", "tests", expression="3")
    play(simulation, engine, 6)
    assert simulation.slots() == [1, 2, 5, 6, 9, 12]
    gone = simulation.schedule().id
    simulation.change(catalog.remove, "job")
    play(simulation, engine, 6)
    with simulation.database.session() as session:
        assert session.get(Schedule, gone) is None
    assert engine.metrics.schedules == 0


def test_a_decision_on_an_outdated_definition_is_taken_again(simulation: BeatSimulation) -> None:
    """The change comes after the leader's last look and before its write."""
    simulation.plant()
    engine = simulation.engine()
    engine.tick()
    simulation.clock.turn(1)
    looked = engine._store.changes
    engine._store.changes = lambda: engine._changes  # type: ignore[method-assign]  # it does not see it yet
    simulation.change(catalog.pause, "job", "tests", None)
    assert engine.tick() == 0
    assert simulation.fires() == []
    engine._store.changes = looked  # type: ignore[method-assign]  # now it does
    engine.tick()
    assert simulation.fires() == []


def test_a_schedule_whose_task_is_gone_is_refused_and_the_others_go_on(simulation: BeatSimulation) -> None:
    simulation.plant()
    simulation.plant("gone")
    simulation.set("gone", task="tests.no_longer_there")
    simulation.plant("broken")
    simulation.set("broken", expression="hand-made", kind="cron")
    engine = simulation.engine()
    engine.tick()
    play(simulation, engine, 2)
    assert simulation.slots() == [1, 2]
    assert simulation.slots("gone", state="refused") == [1, 2]
    assert "unknown task" in str(simulation.newest("gone").error)
    assert simulation.fires("broken") == []


def test_old_fires_are_deleted(simulation: BeatSimulation) -> None:
    simulation.plant(expression="3600", misfire="run_all", misfire_limit=100)
    engine = simulation.engine(retention=1)
    engine.tick()
    for _ in range(30):
        simulation.clock.turn(3600)
        engine.tick()
    assert 23 <= len(simulation.fires()) <= 25
    assert simulation.schedule().fired == 30


def test_the_operator_log_is_written_with_the_change_or_not_at_all(simulation: BeatSimulation) -> None:
    simulation.plant()
    with simulation.database.session() as session, session.begin():
        catalog.pause(session, "job", "tests", "why not")
        record_operation(session, "schedules pause", "job", reason="why not")
    with simulation.database.session() as session:
        catalog.resume(session, "job", "tests")
        record_operation(session, "schedules resume", "job")
        session.rollback()
    with simulation.database.session() as session:
        assert [(row.verb, row.target, row.reason) for row in session.exec(select(Operation)).all()] == [
            ("schedules pause", "job", "why not")
        ]
