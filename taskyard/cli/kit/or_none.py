"""An option's value that can also be taken away: the word none."""

from typing import Any, Final

import click


class OrNone(click.ParamType[Any]):
    """Reads a value, or the word none as `OrNone.NONE`; an option that was not given stays None."""

    NONE: Final = object()

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self._inner = inner
        self.name = inner.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value that the word means."""
        if value is self.NONE or value == "none":
            return self.NONE
        return self._inner.convert(value, param, ctx)
