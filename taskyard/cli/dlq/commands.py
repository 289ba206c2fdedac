"""`celery -A tasks dlq`: dead letters."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from uuid import UUID

import click

from taskyard.cli.dlq import operations, resolving
from taskyard.cli.dlq.dead_letter_fields import LETTER_ID, filter_options, letter_facts, letter_filter
from taskyard.cli.jobs.run_fields import attempt_facts
from taskyard.cli.kit.common_options import json_option, page_options
from taskyard.cli.kit.exit_codes import NotFoundError, OperatorCommand
from taskyard.cli.kit.output import json_text, print_block, print_facts, print_json
from taskyard.cli.kit.tables import print_table
from taskyard.database.engine import open_session
from taskyard.database.paging import LONGEST_PAGE
from taskyard.history.dead_letters import (
    STATES,
    DeadLetterFilter,
    DeadLetterGroup,
    find_dead_letter,
    group_dead_letters,
    list_dead_letters,
)
from taskyard.history.models import DeadLetter
from taskyard.history.queries.runs import attempts_of
from taskyard.tasks.dead_letters.stored_message import shown_fields

state_option = click.option(
    "--state",
    type=click.Choice((*STATES, "any")),
    default="open",
    show_default=True,
    help="Dead letters in this state.",
)


@click.group("dlq")
def group() -> None:
    """Dead letters: list, show, redrive, discard, export."""


group.add_command(resolving.redrive_command)
group.add_command(resolving.discard_command)
group.add_command(operations.operations)


@group.command("ls", cls=OperatorCommand)
@filter_options
@state_option
@click.option("--group", "is_grouped", is_flag=True, help="Group by error, most frequent first.")
@page_options
@json_option
def ls(*, limit: int, after: str | None, state: str, is_grouped: bool, as_json: bool, **filters: Any) -> None:
    """List dead letters, newest failure first, or grouped by error."""
    wanted = _wanted(filters, state)
    if is_grouped:
        if after:
            raise click.UsageError("--after cannot be combined with --group; raise --limit")
        _list_groups(wanted, limit, as_json=as_json)
        return
    with open_session() as session:
        page = list_dead_letters(session, wanted, limit=limit, after=after)
        items = letter_facts(session, page.rows) if as_json else []
    if as_json:
        print_json({"items": items, "next": page.after})
        return
    columns = ("id", "task", "queue", "reason", "attempt", "failed (UTC)", "state", "error")
    print_table(columns, [_row(letter) for letter in page.rows])
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


@group.command("show", cls=OperatorCommand)
@click.argument("letter_id", type=LETTER_ID)
@json_option
def show(*, letter_id: UUID, as_json: bool) -> None:
    """Show one dead letter with its attempts; hidden payload fields are masked."""
    with open_session() as session:
        letter = find_dead_letter(session, letter_id)
        if letter is None:
            raise NotFoundError(f"no dead letter {letter_id}")
        attempts = [attempt_facts(attempt) for attempt in attempts_of(session, letter.run_id)]
        (facts,) = letter_facts(session, [letter])
    facts |= {"args": shown_fields(letter), "body_bytes": len(letter.body)}
    if as_json:
        print_json({**facts, "attempt_list": attempts})
        return
    traceback = facts.pop("traceback")
    print_facts({name: value for name, value in facts.items() if value is not None})
    columns = ("number", "state", "started_at", "worker", "error_type", "error_message")
    if attempts:
        click.echo()
        print_table(columns, [[attempt[name] for name in columns] for attempt in attempts])
    if traceback:
        print_block("traceback", traceback)


@group.command("export", cls=OperatorCommand)
@filter_options
@state_option
def export(*, state: str, **filters: Any) -> None:
    """Print dead letters with their attempts as JSON lines; hidden payload fields are masked."""
    for facts in _each(_wanted(filters, state)):
        click.echo(json_text(facts))


def _each(wanted: DeadLetterFilter) -> Iterator[dict[str, Any]]:
    after = None
    with open_session() as session:
        while True:
            page = list_dead_letters(session, wanted, limit=LONGEST_PAGE, after=after)
            for letter, facts in zip(page.rows, letter_facts(session, page.rows), strict=True):
                attempts = [attempt_facts(attempt) for attempt in attempts_of(session, letter.run_id)]
                yield {**facts, "args": shown_fields(letter), "attempt_list": attempts}
            session.commit()
            session.expunge_all()
            after = page.after
            if after is None:
                return


def _list_groups(wanted: DeadLetterFilter, limit: int, *, as_json: bool) -> None:
    with open_session() as session:
        groups = group_dead_letters(session, wanted, limit=limit)
    if as_json:
        print_json({"items": [asdict(each) for each in groups]})
        return
    columns = ("count", "signature", "task", "reason", "oldest (UTC)", "newest (UTC)", "error")
    print_table(columns, [_group_row(each) for each in groups])


def _wanted(filters: dict[str, Any], state: str) -> DeadLetterFilter:
    return letter_filter(filters, state=None if state == "any" else state)


def _group_row(each: DeadLetterGroup) -> tuple[Any, ...]:
    error = f"{each.error_type}: {each.error_message}"
    return (each.count, each.signature, each.task, each.reason, each.oldest, each.newest, error)


def _row(letter: DeadLetter) -> tuple[Any, ...]:
    error = f"{letter.error_type}: {letter.error_message}"
    begin = (letter.id, letter.task, letter.queue, letter.reason, letter.attempt)
    return (*begin, letter.failed_at, letter.state, error)
