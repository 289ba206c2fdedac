"""Deploys: code owns its definitions, operators own pauses and their own schedules."""

from datetime import timedelta
from typing import Any

from tasks.app import app
from taskyard.beat import catalog
from taskyard.beat.entries import Entry, cron, every
from taskyard.beat.timetable import timetable
from tests.beat.app import Mark, mark
from tests.beat.desk import Desk, play


def entry(name: str = "nightly", **fields: Any) -> Entry[Mark]:
    given: dict[str, Any] = {"when": every(timedelta(seconds=10))}
    return Entry(name, mark, Mark(label=name), **(given | fields))


def deploy(desk: Desk, *entries: Entry[Mark]) -> None:
    """A process with this timetable takes the lead."""
    desk.timetable = entries
    engine = desk.engine()
    engine.tick()
    engine.close()
    for one in entries:
        if desk.schedule(one.name).owner == "code":
            desk.set(one.name, cursor=desk.clock.moment)  # the turned clock is ahead of the database's


def test_a_deploy_adds_changes_and_retires_what_code_owns(desk: Desk) -> None:
    deploy(desk, entry(), entry("hourly"))
    before = desk.schedule("nightly")
    assert (before.owner, before.expression, before.args) == ("code", "10", {"label": "nightly", "seconds": 0.0})
    deploy(desk, entry(when=cron("0 2 * * *", "Europe/Rome"), note="at night"))
    after = desk.schedule("nightly")
    assert (after.id, after.expression, after.zone, after.note) == (before.id, "0 2 * * *", "Europe/Rome", "at night")
    assert desk.schedule("hourly").retired_at is not None
    deploy(desk, entry(), entry("hourly"))
    assert desk.schedule("hourly").retired_at is None


def test_a_deploy_that_changes_an_entry_keeps_an_operators_pause(desk: Desk) -> None:
    deploy(desk, entry())
    fired = len(desk.fires("nightly"))
    desk.change(catalog.pause, "nightly", "anna", "too much load")
    desk.timetable = (entry(when=every(timedelta(seconds=5))),)
    engine = desk.engine()
    play(desk, engine, 12)
    row = desk.schedule("nightly")
    assert (row.expression, row.paused_by, row.pause_reason) == ("5", "anna", "too much load")
    assert len(desk.fires("nightly")) == fired


def test_a_deploy_without_a_change_touches_nothing(desk: Desk) -> None:
    deploy(desk, entry())
    before = desk.schedule("nightly")
    desk.timetable = (entry(),)
    desk.engine().tick()
    assert desk.schedule("nightly").changes == before.changes
    assert desk.schedule("nightly").updated_at == before.updated_at


def test_a_deploy_never_touches_the_schedules_of_operators(desk: Desk) -> None:
    desk.plant("nightly", expression="3")
    before = desk.schedule("nightly")
    deploy(desk, entry())
    after = desk.schedule("nightly")
    assert (after.owner, after.expression, after.changes) == ("operator", "3", before.changes)


def test_a_retired_schedule_does_not_fire_and_may_be_removed(desk: Desk) -> None:
    deploy(desk, entry())
    fired = len(desk.fires("nightly"))
    desk.timetable = ()
    engine = desk.engine()
    play(desk, engine, 12)
    assert len(desk.fires("nightly")) == fired
    desk.change(catalog.remove, "nightly")
    play(desk, engine, 1)
    assert engine.metrics.schedules == 0


def test_an_entry_that_a_setting_makes_invalid_stays_as_it_was_and_the_others_are_deployed(desk: Desk) -> None:
    deploy(desk, entry())
    desk.timetable = (entry(when=cron("every night")), entry("hourly"))
    engine = desk.engine()
    engine.tick()
    assert (desk.schedule("nightly").expression, desk.schedule("nightly").retired_at) == ("10", None)
    assert engine.metrics.schedules == 2


def test_the_platforms_own_timetable_is_valid() -> None:
    entries = timetable(app.domains)
    assert [one.definition().name for one in entries] == [one.name for one in entries]
    assert len({one.name for one in entries}) == len(entries)
