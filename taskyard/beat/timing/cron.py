"""Cron expressions: five fields, or six with seconds first; bounded before they are parsed."""

import re
from datetime import datetime

from cronsim import CronSim, CronSimError

from taskyard.beat.errors import InvalidScheduleError

MAX_LENGTH = 200  # characters
MAX_TERMS = 60  # comma-separated parts of one field
FIELDS = ("second", "minute", "hour", "day of month", "month", "day of week")
RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
NAMES = {"month": MONTHS, "day of week": DAYS}
SHORTHANDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_NUMBER = r"[0-9]{1,2}"
_NAME = r"[A-Z]{3}"
_VALUE = rf"(?:{_NUMBER}|{_NAME})"
_TERM = re.compile(
    rf"(?:\*|L|LW|(?P<last>{_NUMBER})L|(?P<nth>{_VALUE})#[1-5]|(?P<first>{_VALUE})(?:-(?P<until>{_VALUE}))?)"
    rf"(?:/(?P<step>{_NUMBER}))?"
)
_ANY_MOMENT = datetime(2000, 1, 1)  # noqa: DTZ001 - the parser asks for one; only wall-clock arithmetic follows


class CronExpression:
    """
    A parsed expression in wall-clock time, without a time zone.

    The syntax is that of Debian's cron: `*`, lists, ranges, steps, names of months and days, and in addition `L`
    (last day), `LW` (last weekday), `5L` (last Friday), `MON#2` (second Monday), `?` for `*` in the fields of days, and
    shorthands such as `@daily`. When day of month or day of week starts with `*` both must match, else one of them is
    enough. `text` is the expression written out.

    Raises:
        InvalidScheduleError: Not such an expression, or one that matches no date.
    """

    def __init__(self, text: str) -> None:
        self.text = _written_out(text)
        fields = self.text.upper().split()
        if len(fields) == len(FIELDS) - 1:
            fields.insert(0, "0")
        for name, limits, field in zip(FIELDS, RANGES, fields, strict=True):
            _check_field(name, limits, field)
        try:
            self._parsed = CronSim(" ".join(fields), _ANY_MOMENT)
        except CronSimError as error:
            raise InvalidScheduleError(
                f"cron {self.text!r}: {str(error)[:1].lower()}{str(error)[1:]}, which no date can match"
            ) from error
        self.is_wall_clock = not fields[1].startswith("*") and not fields[2].startswith("*")
        if self.after(_ANY_MOMENT) is None:
            raise InvalidScheduleError(f"cron {self.text!r}: matches no date in the next 50 years")

    def after(self, local: datetime) -> datetime | None:
        """Return the first match strictly after this time on the wall clock, both naive; None: not in 50 years."""
        search = CronSim.__new__(CronSim)
        search.__dict__.update(self._parsed.__dict__)  # the parsed sets are shared, the position is not
        search.dt = local.replace(microsecond=0)
        try:
            return next(search)
        except (StopIteration, OverflowError):
            return None


def _written_out(text: str) -> str:
    """Return five or six fields with one space between them, shorthands and `?` replaced."""
    if len(text) > MAX_LENGTH:
        raise InvalidScheduleError(f"cron expression of {len(text)} characters; at most {MAX_LENGTH} are read")
    shorthand = text.strip().lower()
    if shorthand.startswith("@"):
        if shorthand not in SHORTHANDS:
            raise InvalidScheduleError(f"cron {text.strip()!r}: use one of {', '.join(SHORTHANDS)}, or five fields")
        return SHORTHANDS[shorthand]
    fields = text.split()
    if len(fields) not in {len(FIELDS) - 1, len(FIELDS)}:
        found = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
        raise InvalidScheduleError(
            f"cron {text!r}: {found}; use five (minute hour day month weekday), six (second first), or @daily"
        )
    for place in (-3, -1):  # day of month, day of week: "?" is Quartz's word for "no matter"
        fields[place] = "*" if fields[place] == "?" else fields[place]
    return " ".join(fields)


def _check_field(name: str, limits: tuple[int, int], field: str) -> None:
    """Refuse what is out of bounds before the parser builds a set from it."""
    terms = field.split(",")
    if len(terms) > MAX_TERMS:
        raise InvalidScheduleError(f"cron {name} field: {len(terms)} terms; at most {MAX_TERMS}")
    for term in terms:
        match = _TERM.fullmatch(term)
        if match is None:
            more = " ('?' stands for '*' in the fields of days only)" if "?" in term else ""
            raise InvalidScheduleError(f"cron {name} field: {term[:40]!r} is not a value, range or step{more}")
        step = match["step"]
        if step is not None and not 1 <= int(step) <= limits[1]:
            raise InvalidScheduleError(f"cron {name} field: step {step} is not between 1 and {limits[1]}")
        _check_values(name, limits, term, [match[part] for part in ("last", "nth", "first", "until")])


def _check_values(name: str, limits: tuple[int, int], term: str, values: list[str | None]) -> None:
    """Refuse a value out of the field's range, and a range that runs backwards."""
    names = NAMES.get(name, ())
    numbers = []
    for value in values:
        if value is None:
            continue
        if not value.isdigit() and value not in names:
            known = f"a number from {limits[0]} to {limits[1]}" + (f", or {names[0]} to {names[-1]}" if names else "")
            raise InvalidScheduleError(f"cron {name} field: {value!r} is not {known}")
        number = int(value) if value.isdigit() else names.index(value) + limits[0]
        if not limits[0] <= number <= limits[1]:
            raise InvalidScheduleError(f"cron {name} field: {value} is not between {limits[0]} and {limits[1]}")
        numbers.append(number)
    if len(numbers) > 1 and numbers[0] > numbers[1]:
        raise InvalidScheduleError(f"cron {name} field: the range {term[:40]} runs backwards; use two parts, as in a,b")
