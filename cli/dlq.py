"""`celery -A tasks dlq`: dead letters."""

import getpass
import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import click
from sqlmodel import Session

from audit.dead_letters import STATES, LetterFilter, find_letter, list_letters
from audit.models import DeadLetter
from audit.paging import LONGEST_PAGE
from cli.bulk import Outcome, report, run_over
from cli.exits import NotFoundError, OperatorCommand
from cli.output import print_block, print_facts, print_json, print_table
from cli.parameters import (
    check_consent,
    check_selection,
    destructive_options,
    json_option,
    page_options,
    since_option,
    until_option,
)
from config.database import open_session
from tasks.letters import shown_fields
from tasks.redrive import DeadLetterNotFoundError, NotRedrivableError, check_redrive, discard, redrive

# Neither the bytes nor the headers: both can hold what the payload model hides.
FIELDS = tuple(name for name in DeadLetter.model_fields if name not in {"body", "headers"})


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filters that mean some dead letters."""
    for option in (
        until_option,
        since_option,
        click.option("--signature", metavar="HEX", help="With an error of this signature."),
        click.option("--error-reason", "reason_code", metavar="CODE", help="Such as exhausted, permanent, time_limit."),
        click.option("--queue", metavar="NAME", help="From this queue."),
        click.option("--task", metavar="NAME", help="Of this task."),
    ):
        command = option(command)
    return command


@click.group("dlq")
def group() -> None:
    """Dead letters: list, show, run again, discard."""


@group.command("ls", cls=OperatorCommand)
@filter_options
@click.option("--state", type=click.Choice((*STATES, "any")), default="open", show_default=True, help="In this state.")
@page_options
@json_option
def ls(*, limit: int, after: str | None, state: str, as_json: bool, **filters: Any) -> None:
    """List dead letters, the newest failure first."""
    wanted = _filter(filters, state=None if state == "any" else state)
    with open_session() as session:
        page = list_letters(session, wanted, limit=limit, after=after)
    if as_json:
        print_json({"items": [_facts(letter) for letter in page.rows], "next": page.after})
        return
    columns = ("id", "task", "queue", "reason", "attempt", "failed (UTC)", "state", "error")
    print_table(columns, [_row(letter) for letter in page.rows])
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


@group.command("show", cls=OperatorCommand)
@click.argument("letter_id", type=click.UUID)
@json_option
def show(*, letter_id: UUID, as_json: bool) -> None:
    """Show one dead letter, with hidden payload fields masked."""
    with open_session() as session:
        letter = find_letter(session, letter_id)
    if letter is None:
        raise NotFoundError(f"no dead letter {letter_id}")
    facts = {**_facts(letter), "args": shown_fields(letter), "body_bytes": len(letter.body)}
    if as_json:
        print_json(facts)
        return
    traceback = facts.pop("traceback")
    print_facts({name: value for name, value in facts.items() if value is not None})
    if traceback:
        print_block("traceback", traceback)


@group.command("redrive", cls=OperatorCommand)
@click.argument("ids", nargs=-1, type=click.UUID)
@filter_options
@click.option("--all", "everything", is_flag=True, help="All open dead letters.")
@click.option("--payload", metavar="JSON", help="Send these fields instead; for one id.")
@click.option("--force", is_flag=True, help="Send again what was marked as redriven and is not known to be sent.")
@destructive_options(needs_reason=False)
@json_option
def redrive_command(  # noqa: PLR0913 - an option each
    *,
    ids: tuple[UUID, ...],
    everything: bool,
    payload: str | None,
    force: bool,
    yes: bool,
    dry_run: bool,
    reason: str,
    as_json: bool,
    **filters: Any,
) -> None:
    """Run dead letters again: the same task and policy, with fresh attempts."""
    check_consent(yes=yes, dry_run=dry_run)
    check_selection(ids, filters, everything=everything)
    fields = _read_payload(payload, ids)

    def one(session: Session, letter_id: UUID) -> dict[str, Any]:
        if dry_run:
            check_redrive(session, _found(session, letter_id))
            return {"id": letter_id}
        run = redrive(session, letter_id, by=getpass.getuser(), reason=reason, fields=fields, is_forced=force)
        return {"id": letter_id, "run_id": run.id, "is_duplicate": run.is_duplicate}

    report("redriven", _over(ids, filters, one), dry_run=dry_run, as_json=as_json)


@group.command("discard", cls=OperatorCommand)
@click.argument("ids", nargs=-1, type=click.UUID)
@filter_options
@click.option("--all", "everything", is_flag=True, help="All open dead letters.")
@destructive_options(needs_reason=True)
@json_option
def discard_command(  # noqa: PLR0913 - an option each
    *, ids: tuple[UUID, ...], everything: bool, yes: bool, dry_run: bool, reason: str, as_json: bool, **filters: Any
) -> None:
    """Close dead letters without running them again."""
    check_consent(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    check_selection(ids, filters, everything=everything)

    def one(session: Session, letter_id: UUID) -> dict[str, Any]:
        if dry_run:
            _found(session, letter_id)
        else:
            discard(session, letter_id, by=getpass.getuser(), reason=reason)
        return {"id": letter_id}

    report("discarded", _over(ids, filters, one), dry_run=dry_run, as_json=as_json)


def _over(
    ids: tuple[UUID, ...], filters: dict[str, Any], one: Callable[[Session, UUID], dict[str, Any]]
) -> Iterator[Outcome]:
    with open_session() as session:
        chosen = iter(ids) if ids else _matching(session, _filter(filters, state="open"))
        yield from run_over(session, chosen, one, missing=DeadLetterNotFoundError, refused=NotRedrivableError)


def _matching(session: Session, wanted: LetterFilter) -> Iterator[UUID]:
    after = None
    while True:
        page = list_letters(session, wanted, limit=LONGEST_PAGE, after=after)
        session.commit()
        yield from (letter.id for letter in page.rows)
        after = page.after
        if after is None:
            return


def _found(session: Session, letter_id: UUID) -> DeadLetter:
    letter = find_letter(session, letter_id)
    if letter is None:
        raise DeadLetterNotFoundError(f"no dead letter {letter_id}")
    if letter.state != "open":
        raise NotRedrivableError(f"dead letter {letter_id} is {letter.state} already")
    return letter


def _read_payload(text: str | None, ids: tuple[UUID, ...]) -> dict[str, Any] | None:
    if text is None:
        return None
    if len(ids) != 1:
        raise click.UsageError("--payload goes with exactly one id")
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"--payload is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise click.UsageError("--payload must be a JSON object")
    return fields


def _filter(filters: dict[str, Any], *, state: str | None) -> LetterFilter:
    rest = {name: value for name, value in filters.items() if name != "reason_code"}
    return LetterFilter(state=state, reason=filters["reason_code"], **rest)


def _facts(letter: DeadLetter) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in FIELDS}


def _row(letter: DeadLetter) -> tuple[Any, ...]:
    error = f"{letter.error_type}: {letter.error_message}"
    begin = (letter.id, letter.task, letter.queue, letter.reason, letter.attempt)
    return (*begin, letter.failed_at, letter.state, error)
