"""A slow, obvious reference for cron slots: looks at every single minute (or second) and asks whether it matches."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

RANGES = {"second": (0, 59), "minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}
ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",  # half hours
    "America/Sao_Paulo",  # until 2019 midnight was left out
    "America/Havana",  # midnight is left out, and comes twice
    "Africa/Casablanca",  # changes around Ramadan
    "Asia/Kolkata",
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Apia",  # left a whole day out in 2011
    "Antarctica/Troll",  # changes by two hours
)


@dataclass(frozen=True)
class Field:
    """One field: its text, the values it stands for, and whether it begins with a star."""

    text: str
    values: frozenset[int]

    @property
    def has_star(self) -> bool:
        return self.text.startswith("*")


@dataclass(frozen=True)
class Expression:
    """Six fields, seconds first; written with five when `has_seconds` is false."""

    fields: tuple[Field, Field, Field, Field, Field, Field]
    has_seconds: bool

    @property
    def text(self) -> str:
        return " ".join(field.text for field in (self.fields if self.has_seconds else self.fields[1:]))

    @property
    def step(self) -> timedelta:
        return timedelta(seconds=1) if self.has_seconds else timedelta(minutes=1)

    @property
    def is_wall_clock(self) -> bool:
        return not self.fields[1].has_star and not self.fields[2].has_star

    def matches(self, local: datetime) -> bool:
        second, minute, hour, day, month, weekday = self.fields
        day_fits, weekday_fits = local.day in day.values, local.isoweekday() % 7 in weekday.values
        both = day.has_star or weekday.has_star
        return (
            local.second in second.values
            and local.minute in minute.values
            and local.hour in hour.values
            and local.month in month.values
            and ((day_fits and weekday_fits) if both else (day_fits or weekday_fits))
        )


def slots(expression: Expression, zone: ZoneInfo, after: datetime, until: datetime) -> list[datetime]:
    """All slots in (after, until]; both are whole steps, in UTC."""
    if expression.is_wall_clock:
        return _once_per_local_time(expression, zone, after, until)
    found, moment = [], after + expression.step
    while moment <= until:
        if expression.matches(moment.astimezone(zone).replace(tzinfo=None)):
            found.append(moment)
        moment += expression.step
    return found


def _once_per_local_time(expression: Expression, zone: ZoneInfo, after: datetime, until: datetime) -> list[datetime]:
    """A local time's slot is the first moment at which the clock on the wall shows it, or a later time."""
    margin = timedelta(hours=26)
    found, shown_before = set(), (after - margin).astimezone(zone).replace(tzinfo=None)
    moment = after - margin
    while moment <= until:
        local = moment.astimezone(zone).replace(tzinfo=None)
        while shown_before < local:  # each local time since the latest one that was ever shown
            shown_before += expression.step
            if expression.matches(shown_before):
                found.add(moment)
        moment += expression.step
    return sorted(slot for slot in found if after < slot <= until)


@st.composite
def fields(draw: st.DrawFn, name: str, *, dense: bool) -> Field:
    """A random field; `dense` ones match often, so that a short span has slots."""
    low, high = RANGES[name]
    kind = draw(st.sampled_from(("star", "step") if dense else ("star", "step", "one", "range", "list")))
    if kind == "star":
        return Field("*", frozenset(range(low, high + 1)))
    if kind == "step":
        step = draw(st.integers(1, max(2, (high - low) // 2)))
        return Field(f"*/{step}", frozenset(range(low, high + 1, step)))
    if kind == "one":
        value = draw(st.integers(low, high))
        return Field(str(value), frozenset({value}))
    if kind == "range":
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        return Field(f"{first}-{last}", frozenset(range(first, last + 1)))
    values = draw(st.lists(st.integers(low, high), min_size=1, max_size=4))
    return Field(",".join(map(str, values)), frozenset(values))


@st.composite
def expressions(draw: st.DrawFn, *, has_seconds: bool) -> Expression:
    """A random expression whose days match often: dates are few in the span that a reference can walk."""
    names = list(RANGES)
    second = draw(fields("second", dense=False)) if has_seconds else Field("0", frozenset({0}))
    minute, hour = draw(fields("minute", dense=False)), draw(fields("hour", dense=False))
    dates = [draw(fields(name, dense=draw(st.booleans()))) for name in names[3:]]
    return Expression((second, minute, hour, dates[0], dates[1], dates[2]), has_seconds)


@st.composite
def moments(draw: st.DrawFn, zone: ZoneInfo) -> datetime:
    """A whole minute in UTC; in half of the cases within a day of a change of the zone's offset."""
    day = datetime(2010, 1, 1, tzinfo=UTC) + timedelta(days=draw(st.integers(0, 7300)))
    if draw(st.booleans()):
        day = next((d for d in (day + timedelta(days=n) for n in range(400)) if _changes(d, zone)), day)
    return day + timedelta(minutes=draw(st.integers(-300, 1500)))


def _changes(day: datetime, zone: ZoneInfo) -> bool:
    return day.astimezone(zone).utcoffset() != (day + timedelta(days=1)).astimezone(zone).utcoffset()
