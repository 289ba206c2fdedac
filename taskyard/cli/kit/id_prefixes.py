"""Ids on the command line may be shortened to a beginning that only one thing has."""

import re
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import click
from sqlalchemy import ColumnElement, select
from sqlmodel import Session, col

from taskyard.cli.kit.exit_codes import NotFoundError
from taskyard.history.models import Run

DIGITS = 32  # of a UUID
GROUPS = (8, 13, 18, 23)  # where a UUID has its dashes
SHOWN = 3  # ids of an ambiguous beginning


class IdParam(click.ParamType[str]):
    """A UUID, or the beginning of one, with or without dashes; :func:`full_id` finds the whole."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check its form."""
        text = str(value).strip().lower()
        digits = text.replace("-", "")
        is_hex = re.fullmatch(rf"[0-9a-f]{{1,{DIGITS}}}", digits) is not None
        if not is_hex or ("-" in text and not _dashed(digits).startswith(text)):
            self.fail(f"{value!r} is not an id (a UUID) or the beginning of one", param, ctx)
        return text


def full_id(session: Session, column: Any, given: str, what: str, *others: Any) -> UUID:
    """
    Return the id that begins with a text; a whole id is returned unseen.

    Args:
        session: Is left without changes.
        column: The UUID column of the table that is meant.
        given: As :class:`IdParam` returns it.
        what: Such as `delivery`, for messages.
        others: Columns of other tables in which the id may be as well.

    Raises:
        click.UsageError: Several ids begin so.
        NotFoundError: None does.
    """
    digits = given.replace("-", "")
    if len(digits) == DIGITS:
        return UUID(digits)
    first, last = UUID(digits.ljust(DIGITS, "0")), UUID(digits.ljust(DIGITS, "f"))
    found = [row for each in (column, *others) for row in _first_of(session, each, each.between(first, last))]
    if not found:
        raise NotFoundError(f"no {what} with an id that begins with {given!r}")
    if len(found) > 1:
        raise _ambiguous(given, found)
    return UUID(str(found[0]))


def full_ids(session: Session, column: Any, given: Iterable[str], what: str) -> list[UUID]:
    """Return the ids that begin with these texts, each once; raises as :func:`full_id` does."""
    return list(dict.fromkeys(full_id(session, column, each, what) for each in given))


def full_run_id(session: Session, given: str) -> str:
    """
    Return the id of the run that begins with a text; what fits no run is returned as it is.

    Raises:
        click.UsageError: Several runs begin so.
    """
    if session.get(Run, given) is not None:
        return given
    column = col(Run.id)
    found = _first_of(session, column, column.startswith(given, autoescape=True))
    if len(found) > 1:
        raise _ambiguous(given, found)
    return str(found[0]) if found else given


def _first_of(session: Session, column: Any, condition: ColumnElement[bool]) -> Sequence[Any]:
    return session.scalars(select(column).where(condition).order_by(column).limit(SHOWN + 1)).all()


def _ambiguous(given: str, found: Sequence[Any]) -> click.UsageError:
    more = ", ..." if len(found) > SHOWN else ""
    return click.UsageError(
        f"{given!r} is the beginning of several ids: {', '.join(map(str, found[:SHOWN]))}{more}; give more characters"
    )


def _dashed(digits: str) -> str:
    """Write digits as a UUID has them, with a dash behind each whole group."""
    text = digits
    for place in GROUPS:
        text = f"{text[:place]}-{text[place:]}" if len(text) >= place else text
    return text
