"""Deploys: code owns its definitions, operators own pauses and their own schedules."""

from datetime import timedelta
from typing import Any

from tasks.app import app
from taskyard.beat import catalog
from taskyard.beat.entries import Entry, cron, every
from taskyard.beat.timetable import timetable
from tests.beat.app import Mark, mark
from tests.beat.simulation import BeatSimulation, play


def entry(name: str = "nightly", **fields: Any) -> Entry[Mark]:
    given: dict[str, Any] = {"when": every(timedelta(seconds=10))}
    return Entry(name, mark, Mark(label=name), **(given | fields))


def deploy(simulation: BeatSimulation, *entries: Entry[Mark]) -> None:
    """A process with this timetable takes the lead."""
    simulation.timetable = entries
    engine = simulation.engine()
    engine.tick()
    engine.close()
    for one in entries:
        if simulation.schedule(one.name).owner == "code":
            simulation.set(one.name, cursor=simulation.clock.moment)  # the turned clock is ahead of the database's


def test_a_deploy_adds_changes_and_retires_what_code_owns(simulation: BeatSimulation) -> None:
    deploy(simulation, entry(), entry("hourly"))
    before = simulation.schedule("nightly")
    assert (before.owner, before.expression, before.args) == ("code", "10", {"label": "nightly", "seconds": 0.0})
    deploy(simulation, entry(when=cron("0 2 * * *", "Europe/Rome"), note="at night"))
    after = simulation.schedule("nightly")
    assert (after.id, after.expression, after.zone, after.note) == (before.id, "0 2 * * *", "Europe/Rome", "at night")
    assert simulation.schedule("hourly").retired_at is not None
    deploy(simulation, entry(), entry("hourly"))
    assert simulation.schedule("hourly").retired_at is None


def test_a_deploy_that_changes_an_entry_keeps_an_operators_pause(simulation: BeatSimulation) -> None:
    deploy(simulation, entry())
    fired = len(simulation.fires("nightly"))
    simulation.change(catalog.pause, "nightly", "anna", "too much load")
    simulation.timetable = (entry(when=every(timedelta(seconds=5))),)
    engine = simulation.engine()
    play(simulation, engine, 12)
    row = simulation.schedule("nightly")
    assert (row.expression, row.paused_by, row.pause_reason) == ("5", "anna", "too much load")
    assert len(simulation.fires("nightly")) == fired


def test_a_deploy_without_a_change_touches_nothing(simulation: BeatSimulation) -> None:
    deploy(simulation, entry())
    before = simulation.schedule("nightly")
    simulation.timetable = (entry(),)
    simulation.engine().tick()
    assert simulation.schedule("nightly").changes == before.changes
    assert simulation.schedule("nightly").updated_at == before.updated_at


def test_a_deploy_never_touches_the_schedules_of_operators(simulation: BeatSimulation) -> None:
    simulation.plant("nightly", expression="3")
    before = simulation.schedule("nightly")
    deploy(simulation, entry())
    after = simulation.schedule("nightly")
    assert (after.owner, after.expression, after.changes) == ("operator", "3", before.changes)


def test_a_retired_schedule_does_not_fire_and_may_be_removed(simulation: BeatSimulation) -> None:
    deploy(simulation, entry())
    fired = len(simulation.fires("nightly"))
    simulation.timetable = ()
    engine = simulation.engine()
    play(simulation, engine, 12)
    assert len(simulation.fires("nightly")) == fired
    simulation.change(catalog.remove, "nightly")
    play(simulation, engine, 1)
    assert engine.metrics.schedules == 0


def test_an_entry_that_a_setting_makes_invalid_stays_as_it_was_and_the_others_are_deployed(
    simulation: BeatSimulation,
) -> None:
    deploy(simulation, entry())
    simulation.timetable = (entry(when=cron("every night")), entry("hourly"))
    engine = simulation.engine()
    engine.tick()
    assert (simulation.schedule("nightly").expression, simulation.schedule("nightly").retired_at) == ("10", None)
    assert engine.metrics.schedules == 2


def test_the_platforms_own_timetable_is_valid() -> None:
    entries = timetable(app.domains)
    assert [one.definition().name for one in entries] == [one.name for one in entries]
    assert len({one.name for one in entries}) == len(entries)
