"""Lengths of time on the command line."""

from datetime import timedelta
from typing import Any

import click

from cli.parameters import AGE, UNITS


class Span(click.ParamType[timedelta]):
    """A length of time such as `90s`, `15m`, `24h`, `7d`."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read the text."""
        if isinstance(value, timedelta):
            return value
        span = AGE.fullmatch(value)
        if span is None:
            self.fail(f"{value!r} is no length of time: use 90s, 15m, 24h, 7d", param, ctx)
        return timedelta(**{UNITS[span[2]]: int(span[1])})


class Spans(click.ParamType[tuple[timedelta, ...]]):
    """Lengths of time, separated by commas: `5s,5m,2h`."""

    name = "spans"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[timedelta, ...]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        return tuple(Span().convert(part.strip(), param, ctx) for part in value.split(","))
