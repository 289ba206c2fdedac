"""Timings in words, for listings."""

from datetime import datetime

from cronsim import CronSim

from taskyard.beat.timing.zones import zone_of

WEEKDAYS = {"1-5": "weekdays", "MON-FRI": "weekdays", "0,6": "weekends", "6,0": "weekends", "6,7": "weekends"}
DAYS = ("Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
ANY_MOMENT = datetime(2000, 1, 1)  # noqa: DTZ001 - the parser asks for one


def timing_text(kind: str, expression: str, zone: str) -> str:
    """
    Describe when a schedule is due.

    >>> timing_text("cron", "0 8 * * 1-5", "Europe/Rome")
    'weekdays 08:00 Europe/Rome'
    >>> timing_text("every", "90", "UTC")
    'every 90 s'
    """
    if kind == "every":
        return f"every {span_text(float(expression))}"
    if kind == "once":
        return f"once {datetime.fromisoformat(expression).astimezone(zone_of(zone)):%Y-%m-%d %H:%M:%S} {zone}"
    return f"{_cron_text(expression)} {zone}"


def span_text(seconds: float) -> str:
    """
    Describe a duration in the largest unit that needs no fraction.

    >>> span_text(7200), span_text(90), span_text(1.5)
    ('2 h', '90 s', '1.5 s')
    """
    for size, unit in UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds:g} s"


def _cron_text(expression: str) -> str:
    fields = expression.upper().split()
    second, minute, hour, day, month, weekday = fields if len(fields) > 5 else ("0", *fields)  # noqa: PLR2004 - five fields have no seconds
    if not (minute.isdigit() and hour.isdigit() and second.isdigit()) or (day, month) != ("*", "*"):
        text: str = CronSim(expression, ANY_MOMENT).explain()
        return f"{text[:1].lower()}{text[1:]}"
    at = f"{int(hour):02}:{int(minute):02}" + (f":{int(second):02}" if second != "0" else "")
    if weekday == "*":
        return f"daily {at}"
    if weekday in WEEKDAYS:
        return f"{WEEKDAYS[weekday]} {at}"
    if weekday in "01234567":
        return f"{DAYS[int(weekday)]} {at}"
    text = CronSim(expression, ANY_MOMENT).explain()
    return f"{text[:1].lower()}{text[1:]}"
