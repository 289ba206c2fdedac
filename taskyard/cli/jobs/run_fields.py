"""Runs and attempts on the command line: filter options, and the fields that are shown."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import click

from taskyard.cli.kit.common_options import since_option, until_option
from taskyard.history.models import STATES, Attempt, Run

RUN_FIELDS = tuple(name for name in Run.model_fields if not name.endswith("_event"))
ATTEMPT_FIELDS = tuple(
    name for name in Attempt.model_fields if not name.endswith("_event") and name not in {"run_id", "last_snooze"}
)


def run_filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the filters of :class:`taskyard.history.queries.runs.RunFilter`."""
    for option in (
        until_option,
        since_option,
        click.option("--text", metavar="TEXT", help="With this text in arguments or error message."),
        click.option("--signature", metavar="HEX", help="With this error signature."),
        click.option("--user", "user_id", metavar="ID", help="Enqueued on behalf of this user."),
        click.option("--state", type=click.Choice(STATES), help="In this state."),
        click.option("--queue", metavar="NAME", help="In this queue."),
        click.option("--task", metavar="NAME", help="Of this task."),
    ):
        command = option(command)
    return command


def run_facts(run: Run) -> dict[str, Any]:
    """Return the fields that are shown of a run."""
    return {name: getattr(run, name) for name in RUN_FIELDS}


def executions_text(attempt: Attempt) -> str:
    """Return starts and stalls of an attempt that ran more than once, one per line."""
    lines = []
    for entry in attempt.executions or ():
        at = datetime.fromisoformat(entry["at"]).strftime("%Y-%m-%d %H:%M:%S")
        is_start = entry["kind"] == "started"
        lines.append(
            f"{at} started on {entry['worker']} ({entry['pid']})" if is_start else f"{at} stalled: lease expired"
        )
    return "\n".join(lines)


def attempt_facts(attempt: Attempt) -> dict[str, Any]:
    """Return the fields that are shown of an attempt."""
    return {name: getattr(attempt, name) for name in ATTEMPT_FIELDS}
