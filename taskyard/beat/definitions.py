"""Definitions of schedules: the same for code and operators, fully validated before they are saved."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from taskyard.beat.errors import InvalidScheduleError
from taskyard.beat.timing.cron import CronExpression
from taskyard.beat.timing.slots import Cron, Every, Once, Series, Timing, first_real
from taskyard.beat.timing.zones import zone_of
from taskyard.settings.queues import NORMAL, PriorityName, priority_number
from taskyard.tasks.errors import InvalidPayloadError, UnknownTaskError
from taskyard.tasks.sending import find_task

type Kind = Literal["cron", "every", "once"]
type Misfire = Literal["skip", "run_once", "run_all"]
type Overlap = Literal["allow", "skip"]

KINDS: tuple[str, ...] = get_args(Kind.__value__)
MISFIRES: tuple[str, ...] = get_args(Misfire.__value__)
OVERLAPS: tuple[str, ...] = get_args(Overlap.__value__)
SHORTEST, LONGEST = timedelta(seconds=1), timedelta(days=366)  # of an interval
LONGEST_JITTER = timedelta(hours=1)
MISFIRE_LIMIT = 100  # slots that run_all may make up for
MAX_NOTE = 500  # characters
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
_SPAN = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,3})?)(?P<unit>s|m|h|d)?")
_EPOCH = re.compile(r"[0-9]{9,}")  # seconds since 1970, which `fromisoformat` reads as a date of long ago
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Definition:
    """
    Everything about a schedule except its progress.

    `expression` is a cron expression, an interval (`30`, `30s`, `5m`, `2h`, `1d`) or a moment (ISO 8601; without an
    offset it is local to `zone`). `jitter` shifts the whole schedule by a fixed part of itself that depends on its
    identity, so that many schedules of one minute do not come at once.
    """

    name: str
    task: str
    kind: Kind
    expression: str
    args: Mapping[str, Any] = field(default_factory=dict)
    zone: str = "UTC"
    jitter: timedelta = timedelta(0)  # up to 1 h, and shorter than an interval
    start: datetime | None = None
    end: datetime | None = None
    misfire: Misfire = "run_once"
    misfire_limit: int = 1  # 1-100; slots that run_all makes up for
    overlap: Overlap = "allow"
    priority: PriorityName | int = NORMAL
    note: str = ""


def checked(definition: Definition) -> Definition:
    """
    Return the definition in its normal form: what is saved.

    Raises:
        InvalidScheduleError: The first thing that is wrong with it, in one line.
    """
    if not _NAME.fullmatch(definition.name):
        raise InvalidScheduleError(
            f"name {definition.name[:140]!r}: use 1-128 letters, digits, '.', '_', ':' or '-', a letter or digit first"
        )
    timing = check_times(definition)
    try:
        args = find_task(definition.task).payload.from_wire(definition.args).to_wire()
    except (UnknownTaskError, InvalidPayloadError) as error:
        raise InvalidScheduleError(str(error)) from error
    priority = priority_number(definition.priority)
    expression = _normal(timing)
    start, end = (_utc(name, at) for name, at in (("start", definition.start), ("end", definition.end)))
    return replace(definition, expression=expression, args=args, priority=priority, start=start, end=end)


def check_times(definition: Definition) -> Timing:
    """
    Return the timing of a definition whose task is not known yet, after a look at all the rest.

    Raises:
        InvalidScheduleError: As :func:`checked`.
    """
    _check_choices(definition)
    if len(definition.note) > MAX_NOTE:
        raise InvalidScheduleError(f"note: at most {MAX_NOTE} characters")
    timing = timing_of(definition.kind, definition.expression, definition.zone)
    _check_span(definition, timing)
    try:
        priority_number(definition.priority)
    except ValueError as error:
        raise InvalidScheduleError(str(error)) from error
    return timing


@lru_cache(maxsize=4096)
def timing_of(kind: str, expression: str, zone: str) -> Timing:
    """
    Make the timing of an expression; schedules with the same one share it.

    Raises:
        InvalidScheduleError: The expression or the zone has no meaning.
    """
    if kind == "cron":
        return Cron(CronExpression(expression), zone_of(zone))
    if kind == "every":
        interval = span_of("interval", expression)
        if not SHORTEST <= interval <= LONGEST:
            raise InvalidScheduleError(f"interval {expression!r}: from 1 second to 366 days")
        return Every(interval)
    if kind == "once":
        return Once(moment_of("moment", expression, zone_of(zone)))
    raise InvalidScheduleError(f"kind {kind!r}: use one of {', '.join(KINDS)}")


def span_of(what: str, text: str) -> timedelta:
    """
    Read a length of time: a number of seconds, or with a unit (`90s`, `5m`, `2h`, `1d`).

    >>> span_of("interval", "1.5m")
    datetime.timedelta(seconds=90)

    Raises:
        InvalidScheduleError: Not a length of time.
    """
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise InvalidScheduleError(f"{what} {text[:40]!r}: use a number of seconds, or 90s, 5m, 2h, 1d")
    try:
        return timedelta(**{_UNITS[match["unit"] or "s"]: float(match["number"])})
    except OverflowError as error:
        raise InvalidScheduleError(f"{what} {text[:40]!r}: too long") from error


def moment_of(what: str, text: str, zone: ZoneInfo) -> datetime:
    """
    Read an ISO 8601 moment; without an offset it is local to the zone. Returns UTC.

    Raises:
        InvalidScheduleError: Not a moment.
    """
    try:
        moment = datetime.fromisoformat("" if _EPOCH.fullmatch(text.strip()) else text.strip())
        return moment.astimezone(UTC) if moment.tzinfo else first_real(moment, zone)
    except (ValueError, OverflowError) as error:
        raise InvalidScheduleError(f"{what} {text[:40]!r}: use an ISO 8601 moment such as 2027-03-01T08:00") from error


def _check_choices(definition: Definition) -> None:
    for name, value, known in (
        ("misfire", definition.misfire, MISFIRES),
        ("overlap", definition.overlap, OVERLAPS),
    ):
        if value not in known:
            raise InvalidScheduleError(f"{name} {value!r}: use one of {', '.join(known)}")
    if not 1 <= definition.misfire_limit <= MISFIRE_LIMIT:
        raise InvalidScheduleError(f"misfire limit {definition.misfire_limit}: from 1 to {MISFIRE_LIMIT}")


def _check_span(definition: Definition, timing: Timing) -> None:
    longest = min(LONGEST_JITTER, timing.interval) if isinstance(timing, Every) else LONGEST_JITTER
    if not timedelta(0) <= definition.jitter <= longest:
        raise InvalidScheduleError(f"jitter {definition.jitter}: from 0 to {longest}")
    start, end = _utc("start", definition.start), _utc("end", definition.end)
    if start is not None and end is not None and start >= end:
        raise InvalidScheduleError("start must lie before end")
    before_all = (start or datetime(1970, 1, 1, tzinfo=UTC)) - timedelta(seconds=1)
    if Series(timing, start, end).after(before_all) is None:
        raise InvalidScheduleError(f"{definition.kind} {definition.expression!r}: no slot between start and end")


def _utc(what: str, at: datetime | None) -> datetime | None:
    if at is not None and at.tzinfo is None:
        raise InvalidScheduleError(f"{what} {at}: has no time zone")
    return at and at.astimezone(UTC)


def _normal(timing: Timing) -> str:
    if isinstance(timing, Cron):
        return timing.expression.text
    if isinstance(timing, Every):
        return f"{timing.interval.total_seconds():.3f}".rstrip("0").rstrip(".")
    if isinstance(timing, Once):
        return timing.at.isoformat()
    raise TypeError(timing)
