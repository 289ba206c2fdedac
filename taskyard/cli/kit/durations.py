"""Durations on the command line."""

from datetime import timedelta
from typing import Any

import click

from taskyard.cli.kit.common_options import AGE, UNITS

LONGEST = timedelta(days=36_500)  # today plus or minus this is a valid date


class DurationParam(click.ParamType[timedelta]):
    """A duration such as `90s`, `15m`, `24h`, `7d`; at most 100 years."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse the text."""
        if isinstance(value, timedelta):
            return value
        span = AGE.fullmatch(value)
        if span is None:
            self.fail(f"{value!r} is not a duration: use 90s, 15m, 24h, 7d", param, ctx)
        length = timedelta(**{UNITS[span[2]]: int(span[1])})
        if length > LONGEST:
            self.fail(f"{value!r} is too long: at most {LONGEST.days}d", param, ctx)
        return length


class DurationListParam(click.ParamType[tuple[timedelta, ...]]):
    """Durations, separated by commas: `5s,5m,2h`."""

    name = "durations"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[timedelta, ...]:
        """Parse the text."""
        if isinstance(value, tuple):
            return value
        return tuple(DurationParam().convert(part.strip(), param, ctx) for part in value.split(","))
