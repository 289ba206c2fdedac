"""Pages by key: each starts after the last row of the one before, so that new rows shift nothing."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, literal, tuple_
from sqlmodel import Session
from sqlmodel.sql.expression import SelectOfScalar

from taskyard.database.columns import UtcDateTime

PAGE = 50  # rows
LONGEST_PAGE = 1000  # rows


class BadCursorError(ValueError):
    """The text is no cursor of ours."""


@dataclass(frozen=True, slots=True)
class Page[Row]:
    """Some rows, newest first."""

    rows: Sequence[Row]
    after: str | None  # cursor of the next page; None: this is the last one
    end: str | None = None  # where this page ends, also when it is the last one; told by some listings


def select_page[Row](  # noqa: PLR0913 - what a page is of, and which one
    session: Session, query: SelectOfScalar[Row], moment: Any, key: Any, *, limit: int, after: str | None
) -> Page[Row]:
    """
    Return a page of the rows of a query, newest first by a column of moments and one that is unique.

    Raises:
        BadCursorError: `after` does not come from an earlier page of this listing.
    """
    query = query.order_by(moment.desc(), key.desc()).limit(limit + 1)
    if after is not None:
        since, text = read_cursor(after)
        last = read_uuid(text) if isinstance(key.type, Uuid) else text
        query = query.where(tuple_(moment, key) < tuple_(literal(since, UtcDateTime()), literal(last)))
    rows = session.exec(query).all()
    more, rows = len(rows) > limit, rows[:limit]
    place = [getattr(rows[-1], column.key) for column in (moment, key)] if rows else []
    end = write_cursor(place[0], str(place[1])) if rows and place[0] is not None else None
    return Page(rows, end if more else None, end)


def within(moment: Any, since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    """Return the conditions that a moment is at or after one time and before another; None: without that bound."""
    conditions = []
    if since is not None:
        conditions.append(moment >= since)
    if until is not None:
        conditions.append(moment < until)
    return conditions


def write_cursor(moment: datetime, key: str) -> str:
    """
    Return the text that stands for the place after this row.

    >>> read_cursor(write_cursor(datetime(2026, 1, 2, tzinfo=UTC), "a"))
    (datetime.datetime(2026, 1, 2, 0, 0, tzinfo=datetime.timezone.utc), 'a')
    """
    return base64.urlsafe_b64encode(f"{moment.astimezone(UTC).isoformat()} {key}".encode()).decode().rstrip("=")


def read_cursor(text: str) -> tuple[datetime, str]:
    """
    Return the moment and the key of the row that a cursor stands for.

    Raises:
        BadCursorError: It does not come from :func:`write_cursor`.
    """
    try:
        moment, space, key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(" ")
        parsed = datetime.fromisoformat(moment)
    except (ValueError, binascii.Error) as error:
        raise BadCursorError(f"{text!r} is no cursor") from error
    if not space or parsed.tzinfo is None:
        raise BadCursorError(f"{text!r} is no cursor")
    return parsed, key


def read_uuid(key: str) -> UUID:
    """
    Return the key of a cursor over rows whose key is a UUID.

    Raises:
        BadCursorError: It is none: the cursor belongs to another listing.
    """
    try:
        return UUID(key)
    except ValueError as error:
        raise BadCursorError("this is a cursor of another listing") from error
