"""`-P prefork` means prefork: Celery mistakes it for its own default and takes the configured pool instead."""

from typing import Any

import click
from celery.bin.worker import WorkersPool, worker
from celery.concurrency import get_implementation
from click.core import ParameterSource


class WorkerPoolParam(WorkersPool):
    """Pool names; one given on the command line wins over the configuration."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the pool's class."""
        is_explicit = ctx and param and ctx.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE
        if value == "prefork" and is_explicit:
            return get_implementation("prefork")
        return super().convert(value, param, ctx)


def take_pools_at_their_word() -> None:
    """Make `celery worker --pool` honour an explicit prefork."""
    for option in worker.params:
        if type(option.type) is WorkersPool:
            option.type = WorkerPoolParam()
