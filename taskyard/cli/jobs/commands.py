"""`celery -A tasks jobs`: runs and their attempts."""

import getpass
from datetime import timedelta
from typing import Any

import click

from taskyard.broker.admin.queue_control import MessageNotFoundError
from taskyard.cli.jobs import follow
from taskyard.cli.jobs.follow import follow_runs, for_option, progress_text
from taskyard.cli.jobs.lost import close_lost, lost
from taskyard.cli.jobs.run_fields import attempt_facts, executions_text, run_facts, run_filter_options
from taskyard.cli.kit.common_options import (
    check_confirmed,
    destructive_options,
    json_option,
    page_options,
)
from taskyard.cli.kit.exit_codes import NotFoundError, OperatorCommand
from taskyard.cli.kit.id_prefixes import RUN_ID
from taskyard.cli.kit.output import (
    milliseconds,
    print_block,
    print_facts,
    print_json,
    print_result,
    printable,
)
from taskyard.cli.kit.recorded_changes import logged_change, queue_control
from taskyard.cli.kit.text_tables import print_table
from taskyard.database.engine import open_session
from taskyard.flows.queries import flow_of_run
from taskyard.history.dead_letters import dead_letters_of_run
from taskyard.history.models import Attempt
from taskyard.history.queries.runs import RunFilter, attempts_of, children_of, find_run, list_runs
from taskyard.tasks.current_app import current_app

EXPLAINED = (
    "run_id", "state", "queue", "place", "attempt", "stalls", "cancelled_by", "group_key", "consumers", "reasons",
)  # fmt: skip


@click.group("jobs")
def group() -> None:
    """Runs and their attempts: list, show, logs, tail, explain, retry, cancel; find lost runs."""


group.add_command(follow.logs)
group.add_command(follow.tail)
group.add_command(follow.retry)
group.add_command(lost)
group.add_command(close_lost)


@group.command("ls", cls=OperatorCommand)
@run_filter_options
@click.option("--follow", is_flag=True, help="Keep printing changes of these runs, like jobs tail.")
@for_option
@page_options
@json_option
def ls(*, limit: int, after: str | None, follow: bool, span: timedelta | None, as_json: bool, **filters: Any) -> None:
    """List runs, newest first."""
    if follow:
        if as_json or after:
            raise click.UsageError("--follow cannot be combined with --json or --after")
        for line in follow_runs(RunFilter(**filters), span):
            click.echo(line)
        return
    with open_session() as session:
        page = list_runs(session, RunFilter(**filters), limit=limit, after=after)
    if as_json:
        print_json({"items": [run_facts(run) for run in page.rows], "next": page.after})
        return
    columns = ("id", "task", "queue", "state", "attempts", "enqueued (UTC)", "wait", "runtime", "error")
    rows = [
        (
            run.id,
            run.task,
            run.queue,
            run.state,
            run.attempts,
            run.enqueued_at,
            milliseconds(run.wait_ms),
            milliseconds(run.runtime_ms),
            run.error_type if run.state in {"failed", "retrying"} else None,
        )
        for run in page.rows
    ]
    print_table(columns, rows)
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


@group.command("show", cls=OperatorCommand)
@click.argument("run_id", type=RUN_ID)
@json_option
def show(*, run_id: str, as_json: bool) -> None:
    """Show one run with all its attempts."""
    from taskyard.beat.views import origin_of  # noqa: PLC0415 - the other verbs start without the scheduler

    with open_session() as session:
        run = find_run(session, run_id)
        if run is None:
            raise NotFoundError(f"no run {run_id}")
        attempts, children = attempts_of(session, run_id), children_of(session, run_id)
        origin = {**origin_of(session, run_id), **flow_of_run(session, run_id, run.root_id)}
        dead_letters = dead_letters_of_run(session, run_id)
    if as_json:
        listed = [attempt_facts(attempt) for attempt in attempts]
        more = {"children": [child.id for child in children], "dead_letters": dead_letters}
        print_json({**run_facts(run), **origin, "attempt_list": listed, **more})
        return
    shown = {**run_facts(run), **origin, "progress": progress_text(run.progress)}
    print_facts({name: value for name, value in shown.items() if value is not None})
    if dead_letters:
        print_facts({"dead letters": ", ".join(str(dead_letter) for dead_letter in dead_letters)})
    if children:
        print_facts({"children": ", ".join(child.id for child in children)})
    click.echo()
    print_table(
        ("attempt", "state", "started (UTC)", "wait", "runtime", "snoozes", "next try (UTC)", "worker", "error"),
        [_attempt_row(attempt) for attempt in attempts],
    )
    for attempt in attempts:
        if attempt.executions:
            print_block(f"executions of attempt {attempt.number}", executions_text(attempt))
        if attempt.traceback:
            print_block(f"traceback of attempt {attempt.number}", attempt.traceback)


@group.command("explain", cls=OperatorCommand)
@click.argument("run_id", type=RUN_ID)
@json_option
def explain(*, run_id: str, as_json: bool) -> None:
    """Explain why a run is not running: queue paused, limited, no consumer, or other messages first."""
    try:
        found = queue_control().explain(run_id)
    except MessageNotFoundError as error:
        raise NotFoundError(f"{error}; see: celery -A tasks jobs show {run_id}") from error
    facts = {name: getattr(found, name) for name in EXPLAINED}
    if as_json:
        print_json({**facts, "left_seconds": found.left.total_seconds() if found.left else None})
        return
    for reason in found.reasons:
        click.echo(printable(reason, limit=None))
    print_facts({name: value for name, value in facts.items() if value is not None and name != "reasons"})


@group.command("cancel", cls=OperatorCommand)
@click.argument("run_id", type=RUN_ID)
@destructive_options(needs_reason=True)
@json_option
def cancel(*, run_id: str, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Cancel a run; a running one is stopped if its pool can do that."""
    from taskyard.flows.steering import run_was_cancelled  # noqa: PLC0415 - the other verbs start without the sending

    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    if dry_run:
        print_result(f"{run_id} would be cancelled", as_json=as_json, run_id=run_id, was=None, dry_run=True)
        return
    with logged_change("jobs cancel", run_id, reason=reason):
        state = queue_control().cancel(run_id, by=getpass.getuser(), reason=reason)
        if state == "unknown":
            raise NotFoundError(f"the broker has no message of run {run_id}; see: celery -A tasks jobs show {run_id}")
        if state == "active":
            current_app().control.revoke(run_id, terminate=True)
    if state != "active":  # outside of the block: its open transaction would lock SQLite
        run_was_cancelled(run_id, getpass.getuser(), reason)
    print_result(f"{run_id} is cancelled; it was {state}", as_json=as_json, run_id=run_id, was=state, dry_run=False)


def _attempt_row(attempt: Attempt) -> tuple[Any, ...]:
    worker = attempt.worker and f"{attempt.worker} ({attempt.pid})"
    error = attempt.error_type and f"{attempt.error_type}: {attempt.error_message or ''}"
    wait, runtime = milliseconds(attempt.wait_ms), milliseconds(attempt.runtime_ms)
    begin = (attempt.number, attempt.state, attempt.started_at, wait, runtime, attempt.snoozes)
    return (*begin, attempt.next_try_at, worker, error)
