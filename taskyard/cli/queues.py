"""`celery -A tasks queues`: message counts, pauses, limits, and single messages."""

import getpass
import re
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import click

from taskyard.broker.admin.queue_control import MessageBusyError, MessageNotFoundError, QueueControl
from taskyard.broker.admin.queue_info import PeekedMessage, QueueCounts, QueueLimits
from taskyard.cli.kit.common_options import change_options, check_confirmed, destructive_options, json_option
from taskyard.cli.kit.durations import DurationParam
from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand
from taskyard.cli.kit.id_prefixes import RUN_ID
from taskyard.cli.kit.output import milliseconds, print_json, print_result
from taskyard.cli.kit.rates import RateParam, rate_text
from taskyard.cli.kit.recorded_changes import logged_change, queue_control
from taskyard.cli.kit.tables import print_table
from taskyard.database.columns import utc_now
from taskyard.tasks.known_queues import known_queues

STATES = ("waiting", "delayed", "active", "dead")
MAX_PEEKED = 1000
LIMIT = re.compile(r"[0-9]{1,7}")
MAX_LIMIT = 1_000_000
NO_LIMIT = 0  # the value of `--concurrency none`

run_argument = click.argument("run_id", type=RUN_ID)


class QueueParam(click.ParamType[str]):
    """The name of a declared queue."""

    name = "queue"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002 - Click's signature
        """Check that it is declared: a typo must not pause a queue that does not exist."""
        known = known_queues()
        if value not in known:
            raise NotFoundError(f"no queue {value!r}; known queues: {', '.join(known)}")
        return str(value)


class LimitParam(click.ParamType[int]):
    """A number from 1 up, or `none`."""

    name = "count"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the text; `none` is 0."""
        if value == "none":
            return NO_LIMIT
        if LIMIT.fullmatch(str(value)) is None or not 1 <= int(value) <= MAX_LIMIT:
            self.fail(f"{value!r} is not a limit: use a number from 1 to {MAX_LIMIT}, or none", param, ctx)
        return int(value)


queue_argument = click.argument("queue", type=QueueParam())


@click.group("queues")
def group() -> None:
    """Queues: list, pause, limit, peek, drain; promote, move or remove single messages."""


@group.command("ls", cls=OperatorCommand)
@json_option
def ls(*, as_json: bool) -> None:
    """List queues with message counts, consumers and limits."""
    found = [queue_control().counts(queue) for queue in known_queues()]
    if as_json:
        print_json({"items": [_facts(counts) for counts in found]})
        return
    columns = ("queue", "waiting", "delayed", "active", "dead", "oldest", "consumers", "limits")
    print_table(columns, [_row(counts) for counts in found])


@group.command("pause", cls=OperatorCommand)
@queue_argument
@click.option(
    "--for",
    "span",
    type=DurationParam(),
    metavar="TIME",
    help="Resume automatically after this time: 30m, 2h.",
)
@change_options
@json_option
def pause(*, queue: str, span: timedelta | None, reason: str, as_json: bool) -> None:
    """Pause a queue; running tasks continue."""
    if span == timedelta(0):
        raise click.UsageError(
            "nothing was paused: --for must be positive; without --for the queue stays paused until resume"
        )
    until = utc_now() + span if span else None
    facts = {"until": until.isoformat() if until else None}
    with logged_change("queues pause", queue, reason=reason, facts=facts, is_urgent=True):
        queue_control().pause(queue, by=getpass.getuser(), reason=reason, until=until)
    text = f"{queue} is paused" + (f" until {until:%Y-%m-%d %H:%M:%S} UTC" if until else "")
    print_result(text, as_json=as_json, queue=queue, paused=True, until=until)


@group.command("resume", cls=OperatorCommand)
@queue_argument
@change_options
@json_option
def resume(*, queue: str, reason: str, as_json: bool) -> None:
    """Resume a paused queue."""
    with logged_change("queues resume", queue, reason=reason, is_urgent=True):
        queue_control().resume(queue)
    print_result(f"{queue} is resumed", as_json=as_json, queue=queue, paused=False, until=None)


@group.command("limit", cls=OperatorCommand)
@queue_argument
@click.option(
    "--rate", type=RateParam(), metavar="N/UNIT", help="Task starts, all workers together: 100/s, 30/m, 5/h, or none."
)
@click.option("--key-rate", type=RateParam(), metavar="N/UNIT", help="The same, per group key.")
@click.option(
    "--concurrency", type=LimitParam(), metavar="N", help="Tasks running at once, all workers together, or none."
)
@click.option("--key-concurrency", type=LimitParam(), metavar="N", help="The same, per group key.")
@change_options
@json_option
def limit(*, queue: str, reason: str, as_json: bool, **wanted: Any) -> None:
    """Set or remove limits of a queue; limits not given stay as they are."""
    given = {name: value for name, value in wanted.items() if value is not None}
    if not given:
        raise click.UsageError("nothing was changed: give a limit, such as --concurrency 5 or --rate none")
    facts = {name: rate_text(value) if name.endswith("rate") else value or None for name, value in given.items()}
    with logged_change("queues limit", queue, reason=reason, facts=facts, is_urgent=True):
        _set_limits(queue_control(), queue, given)
    limits = _limits_text(queue_control().limits(queue))
    print_result(f"{queue}: {limits or 'no limits'}", as_json=as_json, queue=queue, changed=facts, limits=limits)


@group.command("peek", cls=OperatorCommand)
@queue_argument
@click.option(
    "--state", type=click.Choice(STATES), default="waiting", show_default=True, help="Messages in this state."
)
@click.option("--count", type=click.IntRange(1, MAX_PEEKED), default=10, show_default=True, help="Number of messages.")
@json_option
def peek(*, queue: str, state: Any, count: int, as_json: bool) -> None:
    """Show the next messages of a queue, in order, without payloads; changes nothing."""
    found = [_message(each) for each in queue_control().peek(queue, state, count)]
    if as_json:
        print_json({"items": found})
        return
    columns = ("run_id", "task", "priority", "group_key", "attempt", "stalls", "put_at", "at", "reason")
    print_table(columns, [[facts[name] for name in columns] for facts in found])


@group.command("drain", cls=OperatorCommand)
@queue_argument
@destructive_options(needs_reason=True)
@json_option
def drain(*, queue: str, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Remove all waiting messages of a queue and cancel their runs."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    if dry_run:
        waiting = queue_control().counts(queue).waiting
        text = f"{waiting} waiting messages of {queue} would be removed"
        print_result(text, as_json=as_json, queue=queue, removed=waiting, dry_run=True)
        return
    with logged_change("queues drain", queue, reason=reason) as row:
        row.count = queue_control().drain(queue, by=getpass.getuser(), reason=reason)
    text = f"{row.count} waiting messages of {queue} were removed"
    print_result(text, as_json=as_json, queue=queue, removed=row.count, dry_run=False)


@group.command("promote", cls=OperatorCommand)
@run_argument
@change_options
@json_option
def promote(*, run_id: str, reason: str, as_json: bool) -> None:
    """Make a delayed run due now."""
    _on_message("queues promote", run_id, reason, lambda control: control.promote(run_id))
    print_result(f"{run_id} is waiting now", as_json=as_json, run_id=run_id, state="waiting")


@group.command("move", cls=OperatorCommand)
@run_argument
@queue_argument
@change_options
@json_option
def move(*, run_id: str, queue: str, reason: str, as_json: bool) -> None:
    """Move a waiting or delayed run to another queue."""
    _on_message("queues move", run_id, reason, lambda control: control.move(run_id, queue))
    print_result(f"{run_id} is moved to {queue}", as_json=as_json, run_id=run_id, queue=queue)


@group.command("remove", cls=OperatorCommand)
@run_argument
@destructive_options(needs_reason=True)
@json_option
def remove(*, run_id: str, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Remove a run that is not running, and cancel it."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    if dry_run:
        explained = _call(lambda: queue_control().explain(run_id))
        text = f"{run_id} ({explained.state} in {explained.queue}) would be removed"
        print_result(text, as_json=as_json, run_id=run_id, dry_run=True)
        return
    who = getpass.getuser()
    _on_message("queues remove", run_id, reason, lambda control: control.remove(run_id, by=who, reason=reason))
    print_result(f"{run_id} was removed", as_json=as_json, run_id=run_id, dry_run=False)


def _on_message(verb: str, run_id: str, reason: str, change: Any) -> None:
    with logged_change(verb, run_id, reason=reason):
        _call(lambda: change(queue_control()))


def _call(action: Any) -> Any:
    try:
        return action()
    except MessageNotFoundError as error:
        raise NotFoundError(str(error)) from error
    except MessageBusyError as error:
        raise FailedError(f"{error}; see: celery -A tasks jobs explain") from error


def _set_limits(control: QueueControl, queue: str, given: dict[str, Any]) -> None:
    setters = {
        "rate": control.set_rate_limit,
        "key_rate": control.set_key_rate_limit,
        "concurrency": control.set_concurrency,
        "key_concurrency": control.set_key_concurrency,
    }
    for name, value in given.items():
        setter: Any = setters[name]
        if name.endswith("rate"):
            setter(queue, *value)
        else:
            setter(queue, value or None)


def _facts(counts: QueueCounts) -> dict[str, Any]:
    age = counts.oldest_age
    limits = asdict(counts.limits)
    for name in ("per", "key_per"):
        span = limits.pop(name)
        limits[f"{name}_seconds"] = span.total_seconds() if span else None
    facts = {name: getattr(counts, name) for name in ("queue", "waiting", "delayed", "active", "dead", "consumers")}
    return {**facts, "oldest_seconds": age.total_seconds() if age else None, "limits": limits}


def _row(counts: QueueCounts) -> tuple[Any, ...]:
    oldest = milliseconds(int(counts.oldest_age / timedelta(milliseconds=1))) if counts.oldest_age else None
    numbers = (counts.waiting, counts.delayed, counts.active, counts.dead)
    return (counts.queue, *numbers, oldest, counts.consumers, _limits_text(counts.limits))


def _limits_text(limits: QueueLimits) -> str:
    """Return pause and limits in a few words."""
    parts = []
    if limits.is_paused:
        by = f" by {limits.paused_by}" if limits.paused_by else ""
        until = f" until {limits.paused_until:%H:%M:%S}" if limits.paused_until else ""
        parts.append(f"paused{by}{until}" + (f": {limits.pause_reason}" if limits.pause_reason else ""))
    if limits.rate:
        parts.append(f"rate {rate_text((limits.rate, limits.per or timedelta(seconds=1)))}")
    if limits.key_rate:
        parts.append(f"rate per key {rate_text((limits.key_rate, limits.key_per or timedelta(seconds=1)))}")
    if limits.concurrency:
        parts.append(f"concurrency {limits.concurrency}")
    if limits.key_concurrency:
        parts.append(f"concurrency per key {limits.key_concurrency}")
    return ", ".join(parts)


def _message(peeked: PeekedMessage) -> dict[str, Any]:
    names = ("run_id", "queue", "task", "priority", "group_key", "attempt", "stalls", "put_at", "at", "reason")
    return {**{name: getattr(peeked, name) for name in names}, "payload_bytes": len(peeked.payload)}
