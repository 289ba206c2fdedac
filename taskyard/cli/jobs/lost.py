"""`celery -A tasks jobs lost` and `close-lost`: unfinished runs whose messages the broker lost."""

import getpass
from collections.abc import Iterator, Mapping
from typing import Any

import click

from taskyard.broker.server.client import shared_client
from taskyard.cli.jobs.run_fields import run_facts, run_filter_options
from taskyard.cli.kit.common_options import check_confirmed, destructive_options, json_option
from taskyard.cli.kit.exit_codes import FailedError, OperatorCommand
from taskyard.cli.kit.output import print_json, print_result
from taskyard.cli.kit.recorded_changes import logged_bulk_change
from taskyard.cli.kit.text_tables import print_table
from taskyard.database.engine import open_session
from taskyard.database.paging import LONGEST_PAGE, PAGE
from taskyard.history.models import Run
from taskyard.history.queries.lost_runs import UNFINISHED, HistoryBehindError, LostRuns
from taskyard.history.queries.runs import RunFilter
from taskyard.settings.loading import current_settings

COLUMNS = ("id", "task", "queue", "state", "attempts", "enqueued (UTC)")


@click.command("lost", cls=OperatorCommand)
@run_filter_options
@click.option("--limit", type=click.IntRange(1, LONGEST_PAGE), default=PAGE, show_default=True, help="Runs to show.")
@json_option
def lost(*, limit: int, as_json: bool, **filters: Any) -> None:
    """
    List unfinished runs whose messages the broker no longer has.

    They will never finish: the broker was flushed, or lost data in a failover. Tasks that are acknowledged early
    (acks_late=False) look the same while they run.
    """
    runs = list(_find(filters))
    if as_json:
        print_json({"count": len(runs), "items": [run_facts(run) for run in runs[:limit]]})
        return
    rows = [(run.id, run.task, run.queue, run.state, run.attempts, run.enqueued_at) for run in runs[:limit]]
    print_table(COLUMNS, rows)
    click.echo(f"{len(runs)} lost", err=True)


@click.command("close-lost", cls=OperatorCommand)
@run_filter_options
@destructive_options(needs_reason=True)
@json_option
def close_lost(*, yes: bool, dry_run: bool, reason: str, as_json: bool, **filters: Any) -> None:
    """Mark lost runs cancelled; repeating their work is up to the app."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    runs = list(_find(filters))
    if dry_run:
        print_result(f"{len(runs)} lost runs would be marked cancelled", as_json=as_json, count=len(runs), dry_run=True)
        return
    facts = {name: str(value) for name, value in filters.items() if value is not None}
    with logged_bulk_change("jobs close-lost", reason=reason, facts=facts) as row:
        _lost_runs().close(runs, by=getpass.getuser(), reason=reason)
        row.count = len(runs)
    print_result(f"{len(runs)} lost runs are marked cancelled", as_json=as_json, count=len(runs), dry_run=False)


def _find(filters: Mapping[str, Any]) -> Iterator[Run]:
    settings, state = current_settings(), filters["state"]
    if settings.taskyard_transport == "redis" or not settings.audit_enabled:
        raise FailedError("this needs Taskyard's transport and the audit; see TASKYARD_TRANSPORT and AUDIT_ENABLED")
    if state is not None and state not in UNFINISHED:
        raise click.UsageError(f"--state {state}: only unfinished runs can be lost; use {', '.join(UNFINISHED)}")
    try:
        yield from _lost_runs().find(RunFilter(**filters))
    except HistoryBehindError as error:
        raise FailedError(str(error)) from error


def _lost_runs() -> LostRuns:
    settings = current_settings()
    return LostRuns(open_session, shared_client(settings.redis_url), settings.taskyard_key_prefix)
