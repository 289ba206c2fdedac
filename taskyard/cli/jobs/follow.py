"""`celery -A tasks jobs logs|tail|retry`: log lines of a run, state changes of runs, and retrying one."""

import getpass
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import click

from taskyard.broker.admin.queue_control import MessageBusyError, MessageNotFoundError
from taskyard.cli.jobs.run_fields import run_filter_options
from taskyard.cli.kit.common_options import change_options, json_option
from taskyard.cli.kit.durations import DurationParam
from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand
from taskyard.cli.kit.id_prefixes import RUN_ID
from taskyard.cli.kit.output import milliseconds, print_json, printable
from taskyard.cli.kit.recorded_changes import logged_bulk_change, logged_change, queue_control
from taskyard.database.engine import open_session
from taskyard.history.dead_letters import open_dead_letter_of
from taskyard.history.models import FINAL_STATES, Run
from taskyard.history.queries.runs import RunFilter, find_run, list_runs
from taskyard.history.task_logs import lines_of

POLL_INTERVAL = 0.5  # seconds between two queries
MAX_WATCHED = 500  # newest runs that are watched

for_option = click.option(
    "--for", "span", type=DurationParam(), metavar="TIME", help="Stop after this time; default: at Ctrl-C."
)


@click.command("logs", cls=OperatorCommand)
@click.argument("run_id", type=RUN_ID)
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Only of this attempt.")
@click.option("--follow", is_flag=True, help="Keep printing until the run has finished.")
@json_option
def logs(*, run_id: str, attempt: int | None, follow: bool, as_json: bool) -> None:
    """Print the log lines of a run, attempt by attempt."""
    if follow and as_json:
        raise click.UsageError("--follow cannot be combined with --json")
    if _state_of(run_id) is None:
        raise NotFoundError(f"no run {run_id}")
    if as_json:
        with open_session() as session:
            print_json({"items": [{"attempt": n, **line} for _, n, line in lines_of(session, run_id, attempt=attempt)]})
        return
    place = _print_lines(run_id, attempt, "")
    while follow:
        is_over = _state_of(run_id) in FINAL_STATES
        place = _print_lines(run_id, attempt, place)
        if is_over:
            return
        time.sleep(POLL_INTERVAL)


@click.command("tail", cls=OperatorCommand)
@run_filter_options
@for_option
def tail(*, span: timedelta | None, **filters: Any) -> None:
    """Print a line for each state change of matching runs."""
    for line in follow_runs(RunFilter(**filters), span):
        click.echo(line)


@click.command("retry", cls=OperatorCommand)
@click.argument("run_id", type=RUN_ID)
@change_options
@json_option
def retry(*, run_id: str, reason: str, as_json: bool) -> None:
    """Retry a run: redrive its dead letter, or make it due now if it is delayed."""
    from taskyard.tasks.dead_letters.redrive import NotRedrivableError, redrive  # noqa: PLC0415 - only this verb sends

    with open_session() as session:
        run = find_run(session, run_id)
        letter = open_dead_letter_of(session, run_id)
        session.commit()  # SQLite: a read holds the write lock
        if run is None and letter is None:
            raise NotFoundError(f"no run {run_id}")
        if letter is not None:
            with logged_bulk_change("jobs retry", run_id, reason=reason, facts={"dead_letter": str(letter.id)}) as row:
                try:
                    new = redrive(session, letter.id, by=getpass.getuser(), reason=reason)
                except NotRedrivableError as error:
                    raise FailedError(str(error)) from error
                row.count = 1
            _say(as_json=as_json, run_id=run_id, result="redriven", new_run_id=new.id)
            return
    with logged_change("jobs retry", run_id, reason=reason):
        _promote(run_id, run.state if run else "unknown")
    _say(as_json=as_json, run_id=run_id, result="promoted", new_run_id=None)


def follow_runs(wanted: RunFilter, span: timedelta | None) -> Iterator[str]:
    """Yield a line for each change, starting with the ten newest runs; stops after `span`, None: never."""
    deadline = None if span is None else time.monotonic() + span.total_seconds()
    seen: dict[str, tuple[Any, ...]] = {}
    while True:
        with open_session() as session:
            rows = list_runs(session, wanted, limit=MAX_WATCHED if seen else 10).rows
        for run in reversed(rows):
            now = (run.state, run.attempts, str(run.progress))
            if seen.get(run.id) != now:
                seen[run.id] = now
                yield _line(run)
        if deadline is not None and time.monotonic() >= deadline:
            return
        time.sleep(POLL_INTERVAL)


def progress_text(progress: Any) -> str | None:
    """
    Return progress in a few words; None: the task reported none.

    >>> progress_text({"done": 30, "total": 120, "note": "pages"})
    '30 of 120 (25 %) pages'
    """
    if not isinstance(progress, dict):
        return None
    done, total, note = progress.get("done"), progress.get("total"), progress.get("note") or ""
    share = (
        f" of {total} ({100 * done // total} %)" if isinstance(done, int) and isinstance(total, int) and total else ""
    )
    return f"{done}{share} {note}".strip()


def _promote(run_id: str, state: str) -> None:
    try:
        queue_control().promote(run_id)
    except MessageNotFoundError as error:
        raise FailedError(f"run {run_id} is {state}: there is nothing to retry") from error
    except MessageBusyError as error:
        raise FailedError(f"run {run_id} is not delayed; see: celery -A tasks jobs explain {run_id}") from error


def _say(*, as_json: bool, **facts: Any) -> None:
    if as_json:
        print_json(facts)
    else:
        as_run = f" as run {facts['new_run_id']}" if facts["new_run_id"] else ""
        click.echo(f"{facts['run_id']} {facts['result']}{as_run}")


def _state_of(run_id: str) -> str | None:
    with open_session() as session:
        run = find_run(session, run_id)
        return run.state if run else None


def _print_lines(run_id: str, attempt: int | None, after: str) -> str:
    place = after
    with open_session() as session:
        for event, number, line in lines_of(session, run_id, attempt=attempt, after=after):
            place = event
            words = (line.get("at"), number, line.get("level"), line.get("logger"), line.get("message"))
            click.echo("  ".join(printable(word, limit=None) for word in words))
    return place


def _line(run: Run) -> str:
    error = f"{run.error_type}: {run.error_message}" if run.state in {"failed", "retrying"} else None
    words = (run.enqueued_at, run.id, run.task, run.state, f"attempt {run.attempts}")
    more = (milliseconds(run.runtime_ms) if run.runtime_ms is not None else None, progress_text(run.progress), error)
    return "  ".join(printable(word) for word in (*words, *filter(None, more)))
