"""`-P prefork` means prefork: Celery cannot tell it from its own default, and takes the configured pool for both."""

from typing import Any

import click
from celery.bin.worker import WorkersPool, worker
from celery.concurrency import get_implementation
from click.core import ParameterSource


class Pools(WorkersPool):
    """The names of pools; one on the command line is taken at its word."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the pool's class."""
        is_asked_for = ctx and param and ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
        if value == "prefork" and is_asked_for:
            return get_implementation("prefork")
        return super().convert(value, param, ctx)


def take_pools_at_their_word() -> None:
    """Let `celery worker` read its option `--pool` so."""
    for option in worker.params:
        if type(option.type) is WorkersPool:
            option.type = Pools()
