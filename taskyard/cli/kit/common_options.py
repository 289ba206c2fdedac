"""Options that several commands share."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click

from taskyard.database.columns import utc_now
from taskyard.database.paging import LONGEST_PAGE, PAGE, read_cursor

AGE = re.compile(r"(\d{1,6})(s|m|h|d|w)")
EPOCH = re.compile(r"\d{9,}")  # seconds since 1970, which `fromisoformat` reads as a date of long ago
LONGEST_REASON = 500  # characters; the shortest column that keeps one
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

type Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class TimeParam(click.ParamType[datetime]):
    """A time: ISO 8601 (UTC unless it has an offset), or an age such as `90s`, `15m`, `2h`, `7d`."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Parse the text."""
        if isinstance(value, datetime):
            return value
        try:
            if age := AGE.fullmatch(value):
                return utc_now() - timedelta(**{UNITS[age[2]]: int(age[1])})
            moment = datetime.fromisoformat("" if EPOCH.fullmatch(value) else value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time: use 2026-01-31T12:00 (UTC), or an age such as 15m, 2h, 7d", param, ctx)


class ReasonParam(click.ParamType[str]):
    """A reason of at most 500 characters, which is stored whole."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check its length."""
        if len(value) > LONGEST_REASON:
            self.fail(f"{len(value)} characters; at most {LONGEST_REASON} are allowed", param, ctx)
        return str(value)


class WaitSecondsParam(click.FloatRange):
    """Seconds to wait, from 0 to a limit; refuses NaN, which Click's range accepts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the number."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


class CursorParam(click.ParamType[str]):
    """A page cursor, as a listing prints it."""

    name = "cursor"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check its format."""
        try:
            read_cursor(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
reason_option = click.option(
    "--reason", type=ReasonParam(), default="", metavar="TEXT", help="Reason, stored in the operator log."
)


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--reason`, and `--yes` as on verbs that must be confirmed: what can be undone is done without it as well."""
    yes = click.option("--yes", is_flag=True, expose_value=False, help="Confirm; not needed for this change.")
    return yes(reason_option(command))


since_option = click.option(
    "--since", type=TimeParam(), metavar="WHEN", help="At or after this time: 2026-01-31T12:00, 2h, 7d."
)
until_option = click.option("--until", type=TimeParam(), metavar="WHEN", help="Before this time.")


def page_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--limit` and `--after`."""
    limit = click.option(
        "--limit", type=click.IntRange(1, LONGEST_PAGE), default=PAGE, show_default=True, help="Rows per page."
    )
    after = click.option("--after", type=CursorParam(), metavar="CURSOR", help="Cursor of the previous page.")
    return limit(after(command))


def destructive_options(*, needs_reason: bool) -> Decorator:
    """Add `--yes`, `--dry-run` and `--reason`; :func:`check_confirmed` reads them."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        yes = click.option("--yes", is_flag=True, help="Confirm: make the change.")
        dry = click.option("--dry-run", is_flag=True, help="Only show what would change.")
        note = "Reason, stored in the operator log." + (" Required with --yes." if needs_reason else "")
        reason = click.option("--reason", type=ReasonParam(), default="", metavar="TEXT", help=note)
        return yes(dry(reason(command)))

    return add


def check_confirmed(*, yes: bool, dry_run: bool, reason: str = "", needs_reason: bool = False) -> None:
    """
    Refuse a command that was not confirmed.

    Raises:
        click.UsageError: Neither or both of `--yes` and `--dry-run`, or no reason where one is needed.
    """
    if yes == dry_run:
        raise click.UsageError("nothing was changed: confirm with --yes, or use --dry-run to see what would change")
    if needs_reason and yes and not reason.strip():
        raise click.UsageError("nothing was changed: --reason is required")


def check_selection(ids: Sequence[UUID], filters: Mapping[str, Any], *, everything: bool) -> None:
    """
    Refuse an empty or ambiguous selection.

    Raises:
        click.UsageError: Neither ids nor filters nor `--all`, or ids together with one of the others.
    """
    has_filter = any(value is not None for value in filters.values())
    if ids and (has_filter or everything):
        raise click.UsageError("ids, a filter and --all cannot be combined")
    if not ids and not has_filter and not everything:
        raise click.UsageError("nothing selected: give ids, a filter, or --all")


def read_json_object(text: str, option: str) -> dict[str, Any]:
    """
    Parse payload fields from an option's JSON.

    Raises:
        click.UsageError: It is not a JSON object, or has a duplicate field.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_each_once)
    except RecursionError as error:
        raise click.UsageError(f"{option}: nested too deeply") from error
    except ValueError as error:
        raise click.UsageError(f"{option}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise click.UsageError(f"{option}: not a JSON object")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in fields if names.count(name) > 1)!r} is a duplicate key")
    return fields
