"""Our commands in this process, as `celery -A tasks` has them."""

import click
from celery.bin.celery import celery as celery_command

from tasks.app import app
from taskyard.cli.commands import LazyCommand, LazyGroup, add_groups

add_groups(app.domains)
OUR_COMMANDS = sorted(
    name for name, command in celery_command.commands.items() if isinstance(command, LazyCommand | LazyGroup)
)


def command_of(name: str) -> click.Command:
    """Return a group or command of ours by its name."""
    return celery_command.commands[name]
