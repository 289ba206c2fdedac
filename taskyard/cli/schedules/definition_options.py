"""The options that define a schedule, and how schedules are shown."""

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click

from taskyard.beat.definitions import MISFIRES, OVERLAPS, Definition, moment_of, span_of
from taskyard.beat.engine.publisher import SlotRefusedError
from taskyard.beat.errors import (
    CodeOwnedError,
    InvalidScheduleError,
    NameTakenError,
    ScheduleNotFoundError,
    ScheduleStateError,
)
from taskyard.beat.timing.describe import timing_text
from taskyard.beat.timing.zones import zone_of
from taskyard.beat.views import FireView, ScheduleView, shown_args
from taskyard.cli.kit.common_options import read_json_object
from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand

KINDS = ("cron", "every", "at")  # options that say when; one of them
PLAIN = (
    *("last_slot", "last_run_id", "last_fired_at", "fired", "skipped", "missed"),
    *("kind", "expression", "zone", "jitter_ms", "start_at", "end_at"),
    *("misfire", "misfire_limit", "overlap", "priority", "note"),
    *("paused_at", "paused_by", "pause_reason", "retired_at"),
    *("created_at", "created_by", "updated_at", "updated_by"),
)  # columns that are shown as they are


class _ScheduleErrors(click.Command):
    """Maps errors of schedules to exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ScheduleNotFoundError as error:
            raise NotFoundError(str(error)) from error
        except (InvalidScheduleError, NameTakenError, CodeOwnedError) as error:
            could_save = self.name in {"add", "edit"}  # the others save no definition
            raise click.UsageError(f"{error}; nothing was saved" if could_save else str(error)) from error
        except (ScheduleStateError, SlotRefusedError) as error:
            raise FailedError(str(error)) from error


class ScheduleCommand(OperatorCommand, _ScheduleErrors):
    """A schedule command; errors are one line and an exit code."""


def definition_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that define a schedule."""
    for option in (
        click.option("--note", metavar="TEXT", help="Free text."),
        click.option("--priority", metavar="PRIORITY", help="high, normal, low, or 0-9 (9 first)."),
        click.option(
            "--overlap", type=click.Choice(OVERLAPS), help="skip: no run while the previous one is unfinished."
        ),
        click.option("--misfire-limit", type=int, metavar="N", help="Maximum slots that run_all makes up, 1-100."),
        click.option("--misfire", type=click.Choice(MISFIRES), help="What to do with slots missed in an outage."),
        click.option("--end", metavar="WHEN", help="No slots at or after this time."),
        click.option("--start", metavar="WHEN", help="No slots before this time."),
        click.option("--jitter", metavar="SPAN", help="Fixed random shift of up to this duration: 20s, 5m."),
        click.option("--args", "args_json", metavar="JSON", help="Payload fields."),
        click.option("--zone", metavar="NAME", help="Time zone, such as Europe/Rome; default: UTC."),
        click.option("--at", metavar="WHEN", help="One time, in --zone unless it has an offset: 2027-03-01T08:00."),
        click.option("--every", metavar="SPAN", help="Interval: 30s, 5m, 2h, 1d."),
        click.option("--cron", metavar="FIELDS", help="Cron expression: five fields, or six with seconds first."),
    ):
        command = option(command)
    return command


def new_definition(name: str, task: str, options: dict[str, Any]) -> Definition:
    """
    Build a definition from the options.

    Raises:
        click.UsageError: Not exactly one of --cron, --every and --at.
        InvalidScheduleError: A value is invalid.
    """
    if sum(options[kind] is not None for kind in KINDS) != 1:
        raise click.UsageError("give exactly one of --cron, --every and --at")
    fields = changed_fields(options)
    return Definition(name=name, task=task, **fields)


def changed_fields(options: dict[str, Any]) -> dict[str, Any]:
    """
    Return the fields of a definition that the options give.

    Raises:
        click.UsageError: More than one timing option, or --args is not a JSON object.
        InvalidScheduleError: A value is invalid.
    """
    given = {name: value for name, value in options.items() if value is not None}
    kinds = [kind for kind in KINDS if kind in given]
    if len(kinds) > 1:
        raise click.UsageError("give only one of --cron, --every and --at")
    fields: dict[str, Any] = {
        name: given[name] for name in ("task", "zone", "misfire", "misfire_limit", "overlap", "note") if name in given
    }
    if kinds:
        fields |= {"kind": "once" if kinds[0] == "at" else kinds[0], "expression": given[kinds[0]]}
    if "priority" in given:
        fields["priority"] = _priority(given["priority"])
    if "jitter" in given:
        fields["jitter"] = span_of("jitter", given["jitter"])
    for name in ("start", "end"):
        if name in given:
            fields[name] = moment_of(name, given[name], zone_of(given.get("zone", "UTC")))
    if "args_json" in given:
        fields["args"] = read_json_object(given["args_json"], "--args")
    return fields


def _priority(text: str) -> Any:
    """Convert digits to a number; anything else is validated with the definition."""
    return int(text) if text.isascii() and text.isdigit() and len(text) == 1 else text


def wants_to_save(definition: Definition, slots: Sequence[datetime], *, yes: bool, as_json: bool) -> bool:
    """
    Show what would be saved, and ask for confirmation.

    Raises:
        click.UsageError: No terminal to ask on, and no `--yes`.
    """
    if not as_json:
        click.echo(f"{definition.name}: {timing_text(definition.kind, definition.expression, definition.zone)}")
        print_preview(slots, definition.zone)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("nothing was saved: confirm with --yes")
    return click.confirm("Save it?")


def print_preview(slots: Sequence[datetime], zone: str) -> None:
    """Print slots in UTC and in the schedule's time zone."""
    local = zone_of(zone)
    for slot in slots:
        beside = "" if zone == "UTC" else f"  = {slot.astimezone(local):%a %Y-%m-%d %H:%M:%S %Z} {zone}"
        click.echo(f"  {slot:%a %Y-%m-%d %H:%M:%S} UTC{beside}")
    if not slots:
        click.echo("  no slots left")


def facts_of(view: ScheduleView) -> dict[str, Any]:
    """Return a schedule as names and values; hidden fields of its payload are masked."""
    row = view.schedule
    return {
        "name": row.name,
        "when": view.when,
        "state": view.state,
        "needs": view.needs or None,
        "owner": row.owner,
        "task": row.task,
        "args": shown_args(row.task, row.args),
        "last_outcome": view.last_outcome,
        "last_lag_ms": view.last_lag_ms,
        **{name: getattr(row, name) for name in PLAIN},
        "next": view.next,
    }


def fire_facts(view: FireView) -> dict[str, Any]:
    """Return a fire as names and values."""
    return {**view.fire.model_dump(exclude={"schedule_id", "fence"}), "outcome": view.outcome}
