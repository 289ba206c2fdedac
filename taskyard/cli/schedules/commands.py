"""`celery -A tasks schedules`: list, inspect and change schedules."""

import getpass
from datetime import datetime
from typing import Any

import click

from taskyard.beat import catalog
from taskyard.beat.definitions import check_times, checked
from taskyard.beat.manual import run_now
from taskyard.beat.timetable import timetable
from taskyard.beat.views import STATES, ScheduleView, list_fires, list_schedules, preview, show_schedule
from taskyard.cli.kit.common_options import (
    TimeParam,
    change_options,
    check_confirmed,
    destructive_options,
    json_option,
    reason_option,
)
from taskyard.cli.kit.output import milliseconds, print_facts, print_json
from taskyard.cli.kit.tables import print_table
from taskyard.cli.schedules.definition_options import (
    ScheduleCommand,
    changed_fields,
    definition_options,
    facts_of,
    fire_facts,
    new_definition,
    print_preview,
    wants_to_save,
)
from taskyard.database.columns import utc_now
from taskyard.database.engine import current_engine, open_session
from taskyard.history.operator_log import record_operation
from taskyard.settings.loading import current_settings
from taskyard.tasks.current_app import current_app

COLUMNS = (
    "name",
    "when",
    "task",
    "owner",
    "state",
    "next (UTC)",
    "last outcome",
    "lag",
    "fired",
    "skipped",
    "missed",
)
name_argument = click.argument("name")
yes_option = click.option("--yes", is_flag=True, help="Save without confirmation.")


@click.group("schedules")
def group() -> None:
    """Schedules: list, show, add, edit, pause, resume, run, remove, preview."""


@group.command("ls", cls=ScheduleCommand)
@click.option("--owner", type=click.Choice((catalog.CODE, catalog.OPERATOR)), help="Schedules of this owner.")
@click.option("--state", type=click.Choice(STATES), help="Schedules in this state.")
@json_option
def ls(*, owner: str | None, state: str | None, as_json: bool) -> None:
    """List schedules, sorted by name."""
    with open_session() as session:
        views = list_schedules(session, timetable(current_app().domains))
    views = [v for v in views if (owner is None or v.schedule.owner == owner) and (state is None or v.state == state)]
    if as_json:
        print_json({"items": [facts_of(view) for view in views]})
        return
    print_table(COLUMNS, [_row(view) for view in views])


@group.command("show", cls=ScheduleCommand)
@name_argument
@click.option(
    "--fires", "count", type=click.IntRange(0, 1000), default=10, show_default=True, help="Recent fires to show."
)
@json_option
def show(*, name: str, count: int, as_json: bool) -> None:
    """Show one schedule, its next five slots and its recent fires."""
    with open_session() as session:
        view = show_schedule(session, name)
        fires = list_fires(session, view.schedule, count)
    facts = facts_of(view)
    if as_json:
        print_json(facts | {"fires": [fire_facts(fire) for fire in fires]})
        return
    following = facts.pop("next")
    print_facts({key: value for key, value in facts.items() if value is not None})
    print_preview(following, view.schedule.zone)
    if fires:
        click.echo()
        columns = ("slot (UTC)", "run", "outcome", "slots", "lag", "error")
        rows = [
            (f.fire.slot, f.fire.id, f.outcome, f.fire.slots, milliseconds(f.fire.lag_ms), f.fire.error) for f in fires
        ]
        print_table(columns, rows)


@group.command("add", cls=ScheduleCommand)
@name_argument
@click.option("--task", required=True, metavar="NAME", help="The task to enqueue.")
@definition_options
@yes_option
@reason_option
@json_option
def add(*, name: str, task: str, yes: bool, reason: str, as_json: bool, **options: Any) -> None:
    """Add a schedule, after showing its next five slots."""
    definition = checked(new_definition(name, task, options))
    slots = preview(definition, utc_now())
    if not wants_to_save(definition, slots, yes=yes, as_json=as_json):
        return
    with open_session() as session, session.begin():
        row = catalog.add(session, definition, by=getpass.getuser())
        record_operation(session, "schedules add", name, reason=reason, facts={"id": str(row.id)})
    _say("added", name, as_json=as_json)


@group.command("edit", cls=ScheduleCommand)
@name_argument
@click.option("--task", metavar="NAME", help="The task to enqueue.")
@definition_options
@yes_option
@reason_option
@json_option
def edit(*, name: str, yes: bool, reason: str, as_json: bool, **options: Any) -> None:
    """Change an operator's schedule, after showing its next five slots; options not given stay as they are."""
    changes = changed_fields(options)
    with open_session() as session:  # validates only: ends with a rollback
        row = catalog.edit(session, name, getpass.getuser(), **changes)
        definition = catalog.definition_of(row)
        session.rollback()
    if not wants_to_save(definition, preview(definition, utc_now()), yes=yes, as_json=as_json):
        return
    with open_session() as session, session.begin():
        catalog.edit(session, name, getpass.getuser(), **changes)
        record_operation(session, "schedules edit", name, reason=reason, facts={"changed": sorted(changes)})
    _say("changed", name, as_json=as_json)


@group.command("pause", cls=ScheduleCommand)
@name_argument
@change_options
@json_option
def pause(*, name: str, reason: str, as_json: bool) -> None:
    """Pause a schedule until it is resumed, across deploys."""
    with open_session() as session, session.begin():
        catalog.pause(session, name, getpass.getuser(), reason or None)
        record_operation(session, "schedules pause", name, reason=reason)
    _say("paused", name, as_json=as_json)


@group.command("resume", cls=ScheduleCommand)
@name_argument
@change_options
@json_option
def resume(*, name: str, reason: str, as_json: bool) -> None:
    """Resume a paused schedule; slots missed during the pause are not made up."""
    with open_session() as session, session.begin():
        catalog.resume(session, name, getpass.getuser())
        record_operation(session, "schedules resume", name, reason=reason)
    _say("resumed", name, as_json=as_json)


@group.command("run", cls=ScheduleCommand)
@name_argument
@click.option("--force", is_flag=True, help="Even if its overlap policy is skip and its last run has not finished.")
@change_options
@json_option
def run(*, name: str, force: bool, reason: str, as_json: bool) -> None:
    """Enqueue one run now, without changing the schedule's own slots."""
    fire = run_now(current_engine(), current_app(), current_settings(), name, reason=reason, is_forced=force)
    if as_json:
        print_json({"name": name, "run_id": fire.id, "slot": fire.slot})
    else:
        click.echo(f"enqueued run {fire.id}")


@group.command("rm", cls=ScheduleCommand)
@name_argument
@destructive_options(needs_reason=False)
@json_option
def rm(*, name: str, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Delete an operator's schedule, or one that code no longer declares; its history is kept."""
    check_confirmed(yes=yes, dry_run=dry_run)
    with open_session() as session:
        catalog.remove(session, name)
        if dry_run:
            session.rollback()
        else:
            record_operation(session, "schedules rm", name, reason=reason)
            session.commit()
    _say("would be removed" if dry_run else "removed", name, as_json=as_json)


@group.command("preview", cls=ScheduleCommand)
@definition_options
@click.option("--from", "start_from", type=TimeParam(), metavar="WHEN", help="Slots after this time; default: now.")
@click.option("--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="Slots to show.")
@json_option
def preview_command(*, start_from: datetime | None, count: int, as_json: bool, **options: Any) -> None:
    """Show the slots of a timing without saving a schedule."""
    definition = new_definition("preview", "preview", options)
    check_times(definition)
    slots = preview(definition, start_from or utc_now(), count)
    if as_json:
        print_json({"slots": slots})
    else:
        print_preview(slots, definition.zone)


def _row(view: ScheduleView) -> tuple[Any, ...]:
    row = view.schedule
    following = view.next[0] if view.next else None
    counted = (row.fired, row.skipped, row.missed)
    lag = milliseconds(view.last_lag_ms)
    outcome = f"needs {view.needs}" if view.needs else view.last_outcome
    return row.name, view.when, row.task, row.owner, view.state, following, outcome, lag, *counted


def _say(what: str, name: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "done": what})
    else:
        click.echo(f"{what}: {name}")
