"""Ids on the command line: whole, or shortened to a beginning that only one thing has."""

import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import click
from sqlalchemy import ColumnElement, select
from sqlmodel import col

from taskyard.cli.kit.exit_codes import NotFoundError
from taskyard.database.engine import open_session
from taskyard.history.models import Run

DIGITS = 32  # of a UUID
GROUPS = (8, 13, 18, 23)  # where a UUID has its dashes
SHOWN = 3  # ids of an ambiguous beginning
WHOLE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class IdParam(click.ParamType[UUID]):
    """
    The UUID of a thing, or the beginning of one, with or without dashes.

    A whole id is not looked up. A beginning that several things have is a usage error, one that none has is not found.
    """

    name = "id"

    def __init__(self, what: str, *columns: Any) -> None:
        """Prepare; `what` is for messages, such as `delivery`, and the columns are where the id may be."""
        self._what, self._columns = what, columns

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        """Return the whole id."""
        if isinstance(value, UUID):
            return value
        given = str(value).strip().lower()
        digits = given.replace("-", "")
        is_hex = re.fullmatch(rf"[0-9a-f]{{1,{DIGITS}}}", digits) is not None
        if not is_hex or ("-" in given and not _dashed(digits).startswith(given)):
            self.fail(f"{value!r} is not an id (a UUID) or the beginning of one", param, ctx)
        if len(digits) == DIGITS:
            return UUID(digits)
        first, last = UUID(digits.ljust(DIGITS, "0")), UUID(digits.ljust(DIGITS, "f"))
        found = [each for column in self._columns for each in _some(column, column.between(first, last))]
        if not found:
            raise NotFoundError(f"no {self._what} with an id that begins with {given!r}")
        _check_unique(given, found)
        return UUID(str(found[0]))


class TextIdParam(click.ParamType[str]):
    """An id that is a text, or the beginning of one; what nothing begins with is returned as it is."""

    name = "text id"

    def __init__(self, column: Any) -> None:
        """Prepare; the ids are in this column."""
        self._column = column

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002 - Click's signature
        """Return the whole id."""
        given = str(value)
        if (
            not given
            or "\0" in given
            or WHOLE.fullmatch(given) is not None
            or _some(self._column, self._column == given)
        ):
            return given
        found = _some(self._column, self._column.startswith(given, autoescape=True))
        _check_unique(given, found)
        return str(found[0]) if found else given


RUN_ID = TextIdParam(col(Run.id))


def _some(column: Any, condition: ColumnElement[bool]) -> Sequence[Any]:
    with open_session() as session:
        return session.scalars(select(column).where(condition).order_by(column).limit(SHOWN + 1)).all()


def _check_unique(given: str, found: Sequence[Any]) -> None:
    if len(found) > 1:
        more = ", ..." if len(found) > SHOWN else ""
        names = ", ".join(map(str, found[:SHOWN]))
        raise click.UsageError(f"several ids begin with {given!r}: {names}{more}; give more characters")


def _dashed(digits: str) -> str:
    """
    Write digits as a UUID has them, with a dash behind each whole group.

    >>> _dashed("b55a0827c9"), _dashed("b55a0827")
    ('b55a0827-c9', 'b55a0827-')
    """
    text = digits
    for place in GROUPS:
        text = f"{text[:place]}-{text[place:]}" if len(text) >= place else text
    return text
