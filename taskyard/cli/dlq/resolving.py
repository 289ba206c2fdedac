"""`celery -A tasks dlq redrive|discard`: a few directly, many by a task that can be aborted and resumed."""

import getpass
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any
from uuid import UUID

import click
from sqlmodel import Session

from taskyard.cli.dlq.dead_letter_fields import LETTER_ID, filter_options, letter_filter
from taskyard.cli.dlq.operations import run_operation
from taskyard.cli.kit.bulk_actions import ItemResult, report, run_over
from taskyard.cli.kit.common_options import (
    check_confirmed,
    check_selection,
    destructive_options,
    json_option,
    read_json_object,
)
from taskyard.cli.kit.exit_codes import OperatorCommand
from taskyard.cli.kit.recorded_changes import logged_bulk_change
from taskyard.database.engine import open_session
from taskyard.database.paging import LONGEST_PAGE
from taskyard.history.bulk_operations import BulkVerb
from taskyard.history.dead_letters import DeadLetterFilter, count_dead_letters, find_dead_letter, list_dead_letters
from taskyard.history.models import DeadLetter
from taskyard.tasks.dead_letters.redrive import (
    DeadLetterNotFoundError,
    NotRedrivableError,
    check_redrive,
    discard,
    redrive,
)

BULK_THRESHOLD = 100  # more dead letters than this are resolved by a task

all_option = click.option("--all", "everything", is_flag=True, help="All open dead letters.")
detach_option = click.option(
    "--detach", is_flag=True, help=f"Do not wait for a bulk operation (more than {BULK_THRESHOLD})."
)


@click.command("redrive", cls=OperatorCommand)
@click.argument("ids", nargs=-1, type=LETTER_ID)
@filter_options
@all_option
@click.option("--payload", metavar="JSON", help="Redrive with these payload fields; needs exactly one id.")
@click.option("--force", is_flag=True, help="Also redrive what is marked redriven but may not have been sent.")
@detach_option
@destructive_options(needs_reason=False)
@json_option
def redrive_command(  # noqa: PLR0913 - an option each
    *,
    ids: tuple[UUID, ...],
    everything: bool,
    payload: str | None,
    force: bool,
    detach: bool,
    yes: bool,
    dry_run: bool,
    reason: str,
    as_json: bool,
    **filters: Any,
) -> None:
    """Run dead letters again with the same task and policy and fresh attempts."""
    check_confirmed(yes=yes, dry_run=dry_run)
    check_selection(ids, filters, everything=everything)
    fields = _read_payload(payload, ids)
    if not ids and not dry_run and _is_bulk(filters):
        run_operation("redrive", letter_filter(filters, state="open"), reason, detach=detach, as_json=as_json)
        return

    def one(session: Session, letter_id: UUID) -> dict[str, Any]:
        if dry_run:
            check_redrive(session, _found(session, letter_id))
            return {"id": letter_id}
        run = redrive(session, letter_id, by=getpass.getuser(), reason=reason, fields=fields, is_forced=force)
        return {"id": letter_id, "run_id": run.id, "is_duplicate": run.is_duplicate}

    outcomes = _over("redrive", ids, filters, one, reason=reason, dry_run=dry_run)
    report("redriven", outcomes, dry_run=dry_run, as_json=as_json)


@click.command("discard", cls=OperatorCommand)
@click.argument("ids", nargs=-1, type=LETTER_ID)
@filter_options
@all_option
@detach_option
@destructive_options(needs_reason=True)
@json_option
def discard_command(  # noqa: PLR0913 - an option each
    *,
    ids: tuple[UUID, ...],
    everything: bool,
    detach: bool,
    yes: bool,
    dry_run: bool,
    reason: str,
    as_json: bool,
    **filters: Any,
) -> None:
    """Close dead letters without running them again."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    check_selection(ids, filters, everything=everything)
    if not ids and not dry_run and _is_bulk(filters):
        run_operation("discard", letter_filter(filters, state="open"), reason, detach=detach, as_json=as_json)
        return

    def one(session: Session, letter_id: UUID) -> dict[str, Any]:
        if dry_run:
            _found(session, letter_id)
        else:
            discard(session, letter_id, by=getpass.getuser(), reason=reason)
        return {"id": letter_id}

    outcomes = _over("discard", ids, filters, one, reason=reason, dry_run=dry_run)
    report("discarded", outcomes, dry_run=dry_run, as_json=as_json)


def _is_bulk(filters: dict[str, Any]) -> bool:
    with open_session() as session:
        return count_dead_letters(session, letter_filter(filters, state="open")) > BULK_THRESHOLD


def _over(  # noqa: PLR0913 - what is done to which, and what is kept of it
    verb: BulkVerb,
    ids: tuple[UUID, ...],
    filters: dict[str, Any],
    one: Callable[[Session, UUID], dict[str, Any]],
    *,
    reason: str,
    dry_run: bool,
) -> Iterator[ItemResult]:
    wanted = letter_filter(filters, state="open")
    with open_session() as session:
        chosen = iter(ids) if ids else _matching(session, wanted)
        outcomes = run_over(session, chosen, one, missing=DeadLetterNotFoundError, refused=NotRedrivableError)
        if dry_run:
            yield from outcomes
            return
        target = str(ids[0]) if len(ids) == 1 else ""
        facts = {"ids": ids} if len(ids) > 1 else asdict(wanted) if not ids else None
        with logged_bulk_change(f"dlq {verb}", target, reason=reason, facts=_plain(facts)) as row:
            for outcome in outcomes:
                row.count += outcome.error is None
                yield outcome


def _plain(facts: dict[str, Any] | None) -> Any:
    """Return facts as JSON values, without what was not asked for."""
    kept = {name: value for name, value in (facts or {}).items() if value is not None}
    return json.loads(json.dumps(kept, default=str)) if kept else None


def _matching(session: Session, wanted: DeadLetterFilter) -> Iterator[UUID]:
    after = None
    while True:
        page = list_dead_letters(session, wanted, limit=LONGEST_PAGE, after=after)
        session.commit()
        yield from (letter.id for letter in page.rows)
        after = page.after
        if after is None:
            return


def _found(session: Session, letter_id: UUID) -> DeadLetter:
    letter = find_dead_letter(session, letter_id)
    if letter is None:
        raise DeadLetterNotFoundError(f"no dead letter {letter_id}")
    if letter.state != "open":
        raise NotRedrivableError(f"dead letter {letter_id} is already {letter.state}")
    return letter


def _read_payload(text: str | None, ids: tuple[UUID, ...]) -> dict[str, Any] | None:
    if text is None:
        return None
    if len(ids) != 1:
        raise click.UsageError("--payload needs exactly one id")
    return read_json_object(text, "--payload")
