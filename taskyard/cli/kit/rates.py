"""Rate limits on the command line: a number per second, minute or hour."""

import re
from datetime import timedelta
from typing import Any

import click

type Rate = tuple[int | None, timedelta]

_RATE = re.compile(r"(\d{1,7})/(s|m|h)")
_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1)}


class RateParam(click.ParamType[Rate]):
    """A limit such as `100/s`, `30/m`, `5/h`, or `none`."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Rate:
        """Parse the text; `none` becomes None."""
        if isinstance(value, tuple):
            return value
        if value == "none":
            return None, _UNITS["s"]
        found = _RATE.fullmatch(value)
        if found is None or int(found[1]) == 0:
            self.fail(f"{value!r} is not a rate: use 100/s, 30/m, 5/h, or none", param, ctx)
        return int(found[1]), _UNITS[found[2]]


def rate_text(rate: Rate) -> str | None:
    """
    Format a rate the way it is parsed.

    >>> rate_text((30, timedelta(minutes=1))), rate_text((None, timedelta(seconds=1)))
    ('30/m', None)
    """
    count, per = rate
    if count is None:
        return None
    unit = next((name for name, span in _UNITS.items() if span == per), f"{per.total_seconds():g} s")
    return f"{count}/{unit}"
