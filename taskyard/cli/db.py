"""`celery -A tasks db`: the database's schema."""

import click

from taskyard.cli.kit.exit_codes import OperatorCommand
from taskyard.cli.kit.options import json_option
from taskyard.cli.kit.output import print_json
from taskyard.database import schema
from taskyard.database.engine import current_engine


@click.group("db")
def group() -> None:
    """The database's schema: upgrade, current."""


@group.command("upgrade", cls=OperatorCommand)
@json_option
def upgrade(*, as_json: bool) -> None:
    """Bring the schema to the newest revision, all or nothing."""
    before = schema.upgrade(current_engine())
    if as_json:
        print_json({"from": before.current, "to": before.head})
    elif before.is_current:
        click.echo(f"already at {before.head}")
    else:
        click.echo(f"upgraded from {before.current or 'an empty database'} to {before.head}")


@group.command("current", cls=OperatorCommand)
@json_option
def current(*, as_json: bool) -> None:
    """Say which revision the schema has, and whether it is the newest."""
    seen = schema.standing(current_engine())
    if as_json:
        print_json({"current": seen.current, "head": seen.head, "is_current": seen.is_current})
    elif seen.is_current:
        click.echo(f"{seen.current} (newest)")
    else:
        click.echo(f"{seen.current or 'no tables'}; the newest is {seen.head}: run celery -A tasks db upgrade")
