"""Dead letters on the command line: filter options, and the fields that are shown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click
from sqlmodel import Session, col

from taskyard.cli.kit.common_options import since_option, until_option
from taskyard.cli.kit.id_prefixes import IdParam
from taskyard.flows.queries import steps_of_headers
from taskyard.history.dead_letters import DeadLetterFilter
from taskyard.history.models import DeadLetter

LETTER_ID = IdParam("dead letter", col(DeadLetter.id))
# Neither the bytes nor the headers: both can hold what the payload model hides.
FIELDS = tuple(name for name in DeadLetter.model_fields if name not in {"body", "headers"})


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select dead letters."""
    for option in (
        until_option,
        since_option,
        click.option("--signature", metavar="HEX", help="With this error signature."),
        click.option(
            "--error-reason",
            "reason_code",
            metavar="CODE",
            help="With this reason: exhausted, permanent, time_limit ...",
        ),
        click.option("--queue", metavar="NAME", help="From this queue."),
        click.option("--task", metavar="NAME", help="Of this task."),
    ):
        command = option(command)
    return command


def letter_filter(filters: Mapping[str, Any], *, state: str | None) -> DeadLetterFilter:
    """Return the filter of these options."""
    rest = {name: value for name, value in filters.items() if name != "reason_code"}
    return DeadLetterFilter(state=state, reason=filters["reason_code"], **rest)


def letter_facts(session: Session, letters: Sequence[DeadLetter]) -> list[dict[str, Any]]:
    """Return the fields that are shown of dead letters, with the flow and step that they are of."""
    steps = steps_of_headers(session, [letter.headers for letter in letters])
    return [
        {**{name: getattr(letter, name) for name in FIELDS}, **step}
        for letter, step in zip(letters, steps, strict=True)
    ]
