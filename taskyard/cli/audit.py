"""`celery -A tasks audit`: statistics, export and retention of runs, and the operator log."""

import signal
import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import click

from taskyard.broker.server.client import shared_client
from taskyard.cli.jobs.run_fields import attempt_facts, run_facts, run_filter_options
from taskyard.cli.kit.common_options import (
    check_confirmed,
    destructive_options,
    json_option,
    page_options,
    since_option,
    until_option,
)
from taskyard.cli.kit.durations import DurationParam
from taskyard.cli.kit.exit_codes import FailedError, OperatorCommand
from taskyard.cli.kit.output import json_text, milliseconds, print_json
from taskyard.cli.kit.recorded_changes import logged_bulk_change
from taskyard.cli.kit.tables import print_table
from taskyard.database.columns import utc_now
from taskyard.database.engine import current_engine, open_session
from taskyard.history.operator_log import Operation, OperationFilter, list_operations
from taskyard.history.queries.runs import RunFilter, each_run
from taskyard.history.queries.stats import Percentiles, RunStats, stats
from taskyard.history.retention import Pruned, count_prunable, prune
from taskyard.history.writer.event_writer import EventWriter
from taskyard.settings.loading import current_settings
from taskyard.tasks.platform_identity import claim_broker

DAY = timedelta(days=1)


@click.group("audit")
def group() -> None:
    """Audit: run statistics, export, retention, and the log of operator actions."""


@group.command("ls", cls=OperatorCommand)
@click.option("--who", metavar="USER", help="Actions of this OS user.")
@click.option("--verb", metavar="TEXT", help="Commands that start with this: queues, 'dlq discard' ...")
@click.option("--target", metavar="TEXT", help="Actions on this name or id.")
@since_option
@until_option
@page_options
@json_option
def ls(*, limit: int, after: str | None, as_json: bool, **filters: Any) -> None:
    """List operator actions, newest first: who, what, when, why, how many."""
    with open_session() as session:
        page = list_operations(session, OperationFilter(**filters), limit=limit, after=after)
    if as_json:
        print_json({"items": [row.model_dump() for row in page.rows], "next": page.after})
        return
    columns = ("at (UTC)", "who", "verb", "target", "count", "reason", "filter")
    print_table(columns, [_operation_row(row) for row in page.rows])
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


@group.command("stats", cls=OperatorCommand)
@click.option("--by", type=click.Choice(("task", "queue", "both")), default="both", show_default=True, help="Group by.")
@since_option
@until_option
@json_option
def stats_command(*, by: Any, since: datetime | None, until: datetime | None, as_json: bool) -> None:
    """Show counts, success rate, wait and run times of finished runs; by default of the last 24 hours."""
    end = until or utc_now()
    begin = since or end - DAY
    if begin >= end:
        raise click.UsageError("--since must be before --until")
    with open_session() as session:
        found = stats(session, begin, end, by)
    if as_json:
        items = [{**asdict(each), "success_rate": each.success_rate} for each in found]
        print_json({"since": begin, "until": end, "items": items})
        return
    columns = ("task", "queue", "ended", "per minute", "success", "failed", "cancelled", "retried")
    print_table((*columns, "wait p50/p95/p99", "runtime p50/p95/p99", "longest"), [_stats_row(each) for each in found])


@group.command("export", cls=OperatorCommand)
@run_filter_options
def export(**filters: Any) -> None:
    """Print runs with their attempts as JSON lines, newest first; hidden fields are masked."""
    with open_session() as session:
        for run, attempts in each_run(session, RunFilter(**filters)):
            facts = {**run_facts(run), "attempt_list": [attempt_facts(attempt) for attempt in attempts]}
            click.echo(json_text(facts))


@group.command("prune", cls=OperatorCommand)
@click.option(
    "--older-than", type=DurationParam(), metavar="TIME", help="Minimum age; default: AUDIT_LOG_RETENTION_DAYS."
)
@destructive_options(needs_reason=False)
@json_option
def prune_command(*, older_than: timedelta | None, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Delete old records now; keeps open dead letters, their runs, and unfinished runs."""
    check_confirmed(yes=yes, dry_run=dry_run)
    span = timedelta(days=current_settings().audit_log_retention_days) if older_than is None else older_than
    if not span:
        raise click.UsageError("nothing was deleted: AUDIT_LOG_RETENTION_DAYS=0 keeps everything; use --older-than 90d")
    before = utc_now() - span
    if dry_run:
        with open_session() as session:
            counts = count_prunable(session, before)
    else:
        with logged_bulk_change("audit prune", reason=reason, facts={"before": before.isoformat()}) as row:

            def show_progress(done: Pruned) -> None:
                row.count = sum(asdict(done).values())
                if sys.stderr.isatty():
                    click.echo(f"\r{row.count} rows deleted", nl=False, err=True)

            counts = prune(open_session, before, on_batch=show_progress)
    if as_json:
        print_json({**asdict(counts), "before": before, "dry_run": dry_run})
        return
    words = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(counts).items())
    click.echo(f"{'would be deleted' if dry_run else 'deleted'}: {words}")


@group.command("write", cls=OperatorCommand)
def write() -> None:
    """Run a dedicated audit writer (events to SQL) until SIGTERM; workers also write in the background."""
    settings = current_settings()
    if not settings.audit_enabled:
        raise FailedError("AUDIT_ENABLED is false: no events are recorded")
    claim_broker()
    writer = EventWriter(shared_client(settings.redis_url), current_engine(), settings.taskyard_key_prefix)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: writer.stop())
    click.echo("audit writer running; stop it with SIGTERM or Ctrl-C", err=True)
    writer.run()


def _operation_row(row: Operation) -> tuple[Any, ...]:
    return (row.at, row.who, row.verb, row.target, row.count, row.reason, row.filter)


def _stats_row(each: RunStats) -> tuple[Any, ...]:
    rate = None if each.success_rate is None else f"{100 * each.success_rate:.1f} %"
    counts = (each.ended, f"{each.per_minute:g}", rate, each.failed, each.cancelled, each.retried)
    return (
        each.task,
        each.queue,
        *counts,
        _spread(each.wait),
        _spread(each.runtime),
        milliseconds(each.runtime.longest),
    )


def _spread(spread: Percentiles) -> str | None:
    if spread.p50 is None:
        return None
    return " / ".join(milliseconds(value) for value in (spread.p50, spread.p95, spread.p99))
