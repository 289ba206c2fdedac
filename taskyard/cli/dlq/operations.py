"""`celery -A tasks dlq operations`: bulk redrives and discards that a worker runs: list, follow, abort, resume."""

import getpass
import sys
import time
from typing import Any
from uuid import UUID

import click
from sqlmodel import col

from taskyard.cli.kit.common_options import change_options, json_option
from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, OperatorCommand, PartlyDoneError
from taskyard.cli.kit.id_prefixes import IdParam
from taskyard.cli.kit.output import print_facts, print_json
from taskyard.cli.kit.recorded_changes import logged_change, queue_control
from taskyard.cli.kit.tables import print_table
from taskyard.database.engine import open_session
from taskyard.history.bulk_operations import (
    BulkVerb,
    OperationProgress,
    abort,
    find_operation,
    list_bulk,
    operation_progress,
    start_operation,
)
from taskyard.history.dead_letters import DeadLetterFilter
from taskyard.history.models import BulkOperation
from taskyard.settings.queues import MAINTENANCE
from taskyard.tasks.records.bulk import operation_key
from taskyard.tasks.records.payloads import ResolveDeadLetters
from taskyard.tasks.records.tasks import resolve_dead_letters

POLL_INTERVAL = 0.3  # seconds between two looks at SQL, which tells nobody when it changes
COLUMNS = ("id", "verb", "state", "total", "done", "refused", "left", "who", "reason", "created_at", "finished_at")


@click.command("operations", cls=OperatorCommand)
@click.argument("operation_id", metavar="[OPERATION]", type=IdParam("operation", col(BulkOperation.id)), required=False)
@click.option("--abort", "is_aborted", is_flag=True, help="Stop OPERATION after its current batch.")
@click.option(
    "--resume", "is_resumed", is_flag=True, help="Enqueue the task of OPERATION again, if the broker lost it."
)
@click.option("--follow", is_flag=True, help="Wait until OPERATION has finished.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="Operations to list.")
@change_options
@json_option
def operations(  # noqa: PLR0913 - an option each
    *,
    operation_id: UUID | None,
    is_aborted: bool,
    is_resumed: bool,
    follow: bool,
    limit: int,
    reason: str,
    as_json: bool,
) -> None:
    """List bulk operations on dead letters, or show, abort, resume or follow one."""
    if operation_id is None:
        if is_aborted or is_resumed or follow:
            raise click.UsageError("give an OPERATION")
        _list(limit, as_json=as_json)
        return
    if is_aborted and is_resumed:
        raise click.UsageError("--abort and --resume cannot be combined")
    _standing(operation_id)
    if is_aborted:
        _abort(operation_id, reason)
    if is_resumed:
        _resume(operation_id, reason)
    if follow:
        _follow(operation_id)
    _print(_standing(operation_id), as_json=as_json)


def run_operation(verb: BulkVerb, wanted: DeadLetterFilter, reason: str, *, detach: bool, as_json: bool) -> None:
    """
    Start a bulk operation and, unless detached, wait until it has finished.

    Raises:
        PartlyDoneError: It was aborted, or some dead letters could not be resolved.
    """
    with open_session() as session:
        operation = start_operation(session, verb, wanted, by=getpass.getuser(), reason=reason)
        session.commit()
    _enqueue(operation.id)
    if detach:
        _print(_standing(operation.id), as_json=as_json)
        return
    if not queue_control().counts(MAINTENANCE.name).consumers:
        click.echo(f"queue {MAINTENANCE.name} has no consumer: the operation starts when it has one", err=True)
    _follow(operation.id)
    standing = _standing(operation.id)
    _print(standing, as_json=as_json)
    if standing.operation.state == "aborted" or standing.operation.refused_count:
        raise PartlyDoneError(f"{standing.done} of {standing.operation.total} dead letters were resolved")


def _enqueue(operation_id: UUID) -> None:
    resolve_dead_letters.enqueue(ResolveDeadLetters(operation_id=operation_id), dedup_key=operation_key(operation_id))


def _abort(operation_id: UUID, reason: str) -> None:
    with open_session() as session:
        is_ours = abort(session, operation_id, by=getpass.getuser(), reason=reason)
        session.commit()
    if not is_ours:
        raise FailedError(f"operation {operation_id} has already finished")
    _enqueue(operation_id)  # a worker opens again what a lost one had marked and not sent


def _resume(operation_id: UUID, reason: str) -> None:
    if _standing(operation_id).operation.state != "running":
        raise FailedError(f"operation {operation_id} has already finished; start a new one for the open dead letters")
    with logged_change("dlq resume", str(operation_id), reason=reason):
        _enqueue(operation_id)


def _follow(operation_id: UUID) -> None:
    """Wait until the operation has finished; Ctrl-C does not stop it."""
    total = _standing(operation_id).operation.total
    is_hidden = not sys.stderr.isatty()
    try:
        with click.progressbar(length=max(total, 1), file=sys.stderr, hidden=is_hidden) as bar:
            while True:
                standing = _standing(operation_id)
                bar.update(total - standing.left - bar.pos)
                if standing.operation.state != "running":
                    return
                time.sleep(POLL_INTERVAL)
    except KeyboardInterrupt:
        click.echo(
            f"the operation continues; to stop it: celery -A tasks dlq operations {operation_id} --abort", err=True
        )
        raise


def _standing(operation_id: UUID) -> OperationProgress:
    with open_session() as session:
        operation = find_operation(session, operation_id)
        if operation is None:
            raise NotFoundError(f"no operation {operation_id}")
        return operation_progress(session, operation)


def _list(limit: int, *, as_json: bool) -> None:
    with open_session() as session:
        found = [_facts(operation_progress(session, operation)) for operation in list_bulk(session, limit)]
    if as_json:
        print_json({"items": found})
    else:
        print_table(COLUMNS, [[facts[name] for name in COLUMNS] for facts in found])


def _print(standing: OperationProgress, *, as_json: bool) -> None:
    facts = _facts(standing)
    if as_json:
        print_json(facts)
    else:
        print_facts({name: value for name, value in facts.items() if value not in (None, [])})


def _facts(standing: OperationProgress) -> dict[str, Any]:
    operation = standing.operation
    kept = ("id", "verb", "state", "filter", "who", "reason", "total", "created_at", "finished_at", "aborted_by")
    facts = {name: getattr(operation, name) for name in kept}
    counts = {"done": standing.done, "refused": operation.refused_count, "left": standing.left}
    return {**facts, **counts, "refusals": operation.refused or []}
