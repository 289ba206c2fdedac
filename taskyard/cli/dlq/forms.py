"""Dead letters on the command line: the filters that mean some, and the facts that are shown of each."""

from collections.abc import Callable, Mapping
from typing import Any

import click

from taskyard.cli.kit.options import since_option, until_option
from taskyard.history.dead_letters import DeadLetterFilter
from taskyard.history.models import DeadLetter

# Neither the bytes nor the headers: both can hold what the payload model hides.
FIELDS = tuple(name for name in DeadLetter.model_fields if name not in {"body", "headers"})


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filters that mean some dead letters."""
    for option in (
        until_option,
        since_option,
        click.option("--signature", metavar="HEX", help="With an error of this signature."),
        click.option("--error-reason", "reason_code", metavar="CODE", help="Such as exhausted, permanent, time_limit."),
        click.option("--queue", metavar="NAME", help="From this queue."),
        click.option("--task", metavar="NAME", help="Of this task."),
    ):
        command = option(command)
    return command


def letter_filter(filters: Mapping[str, Any], *, state: str | None) -> DeadLetterFilter:
    """Return the filter that these options mean."""
    rest = {name: value for name, value in filters.items() if name != "reason_code"}
    return DeadLetterFilter(state=state, reason=filters["reason_code"], **rest)


def letter_facts(letter: DeadLetter) -> dict[str, Any]:
    """Return what is shown of a dead letter."""
    return {name: getattr(letter, name) for name in FIELDS}
