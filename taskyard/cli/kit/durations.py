"""Lengths of time on the command line."""

from datetime import timedelta
from typing import Any

import click

from taskyard.cli.kit.options import AGE, UNITS

LONGEST = timedelta(days=36_500)  # what is added to or taken from today stays a date


class Span(click.ParamType[timedelta]):
    """A length of time such as `90s`, `15m`, `24h`, `7d`; at most 100 years."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read the text."""
        if isinstance(value, timedelta):
            return value
        span = AGE.fullmatch(value)
        if span is None:
            self.fail(f"{value!r} is no length of time: use 90s, 15m, 24h, 7d", param, ctx)
        length = timedelta(**{UNITS[span[2]]: int(span[1])})
        if length > LONGEST:
            self.fail(f"{value!r} is too long: at most {LONGEST.days}d", param, ctx)
        return length


class Spans(click.ParamType[tuple[timedelta, ...]]):
    """Lengths of time, separated by commas: `5s,5m,2h`."""

    name = "spans"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[timedelta, ...]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        return tuple(Span().convert(part.strip(), param, ctx) for part in value.split(","))
