"""One action on many items: each on its own, counted, and reported with the right exit code."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import click
from sqlmodel import Session

from taskyard.cli.kit.exit_codes import FailedError, NotFoundError, PartlyDoneError
from taskyard.cli.kit.output import print_json


@dataclass(frozen=True, slots=True)
class ItemResult:
    """The result for one item."""

    facts: dict[str, Any] = field(default_factory=dict)
    error: str | None = None  # None: done
    is_missing: bool = False


def run_over(
    session: Session,
    ids: Iterable[UUID],
    action: Callable[[Session, UUID], dict[str, Any]],
    *,
    missing: type[Exception],
    refused: type[Exception],
) -> Iterator[ItemResult]:
    """
    Process one item after the other; a missing or refused one does not stop the rest.

    `action` leaves the session without changes of its own. Other errors, such as a lost connection, end the loop.
    """
    for each in ids:
        try:
            facts = action(session, each)
        except (missing, refused) as error:
            session.rollback()
            yield ItemResult({"id": each}, str(error), isinstance(error, missing))
        else:
            session.rollback()
            yield ItemResult(facts)


def report(verb: str, outcomes: Iterable[ItemResult], *, dry_run: bool, as_json: bool) -> None:
    """
    Print each result as it comes, then the counts.

    Raises:
        NotFoundError: None of the items exists.
        FailedError: None succeeded.
        PartlyDoneError: Some succeeded, some did not.
    """
    done: list[dict[str, Any]] = []
    failed: list[ItemResult] = []
    try:
        for outcome in outcomes:
            if outcome.error is None:
                done.append(outcome.facts)
                if not as_json:
                    click.echo(_line("would be " * dry_run + verb, outcome.facts))
            else:
                failed.append(outcome)
    finally:  # an error in the middle must not hide what was done before it
        if as_json:
            errors = [{**outcome.facts, "error": outcome.error} for outcome in failed]
            print_json({verb: done, "failed": errors, "dry_run": dry_run})
        elif done or not failed:
            click.echo(f"{len(done)} {'would be ' * dry_run}{verb}, {len(failed)} failed")
    _end(done, failed)


def _end(done: list[dict[str, Any]], failed: list[ItemResult]) -> None:
    if not failed:
        return
    summary = failed[0].error or ""
    if len(failed) > 1:
        summary += f" (and {len(failed) - 1} more)"
    if done:
        raise PartlyDoneError(summary)
    if all(outcome.is_missing for outcome in failed):
        raise NotFoundError(summary)
    raise FailedError(summary)


def _line(verb: str, facts: dict[str, Any]) -> str:
    run = facts.get("run_id")
    note = " (already enqueued)" if facts.get("is_duplicate") else ""
    return f"{facts['id']} {verb}" + (f" as run {run}{note}" if run else "")
