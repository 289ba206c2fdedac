"""Cron expressions: five fields, or six with seconds first; bounded before they are parsed."""

import re
from datetime import datetime

from cronsim import CronSim, CronSimError

from taskyard.beat.errors import InvalidScheduleError

MAX_LENGTH = 200  # characters
MAX_TERMS = 60  # comma-separated parts of one field
FIELDS = ("second", "minute", "hour", "day of month", "month", "day of week")
LARGEST = (59, 59, 23, 31, 12, 7)
_NUMBER = r"[0-9]{1,2}"
_NAME = r"[A-Z]{3}"
_VALUE = rf"(?:{_NUMBER}|{_NAME})"
_TERM = re.compile(rf"(?:\*|L|LW|{_NUMBER}L|{_VALUE}#[1-5]|{_VALUE}(?:-{_VALUE})?)(?:/(?P<step>{_NUMBER}))?")
_ANY_MOMENT = datetime(2000, 1, 1)  # noqa: DTZ001 - the parser asks for one; only wall-clock arithmetic follows


class CronExpression:
    """
    A parsed expression in wall-clock time, without a time zone.

    The syntax is that of Debian's cron: `*`, lists, ranges, steps, names of months and days, and in addition `L`
    (last day), `LW` (last weekday), `5L` (last Friday), `MON#2` (second Monday). When day of month or day of week
    starts with `*` both must match, else one of them is enough.

    Raises:
        InvalidScheduleError: Not such an expression, or one that matches no date.
    """

    def __init__(self, text: str) -> None:
        self.text = " ".join(_bounded(text).split())
        fields = self.text.upper().split()
        if len(fields) == len(FIELDS) - 1:
            fields.insert(0, "0")
        for name, largest, field in zip(FIELDS, LARGEST, fields, strict=True):
            _check_field(name, largest, field)
        try:
            self._parsed = CronSim(" ".join(fields), _ANY_MOMENT)
        except CronSimError as error:
            raise InvalidScheduleError(f"cron {self.text!r}: {str(error)[:1].lower()}{str(error)[1:]}") from error
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


def _bounded(text: str) -> str:
    if len(text) > MAX_LENGTH:
        raise InvalidScheduleError(f"cron expression of {len(text)} characters; at most {MAX_LENGTH} are read")
    count = len(text.split())
    if count not in {len(FIELDS) - 1, len(FIELDS)}:
        raise InvalidScheduleError(
            f"cron {text!r}: {count} fields; use five (minute hour day month weekday) or six (second first)"
        )
    return text


def _check_field(name: str, largest: int, field: str) -> None:
    """Refuse what is out of bounds before the parser builds a set from it."""
    terms = field.split(",")
    if len(terms) > MAX_TERMS:
        raise InvalidScheduleError(f"cron {name} field: {len(terms)} terms; at most {MAX_TERMS}")
    for term in terms:
        match = _TERM.fullmatch(term)
        if match is None:
            raise InvalidScheduleError(f"cron {name} field: {term[:40]!r} is not a value, range or step")
        step = match["step"]
        if step is not None and not 1 <= int(step) <= largest:
            raise InvalidScheduleError(f"cron {name} field: step {step} is not between 1 and {largest}")
