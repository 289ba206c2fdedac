"""`celery -A tasks db`: the database schema."""

import click

from taskyard.cli.kit.common_options import json_option
from taskyard.cli.kit.exit_codes import OperatorCommand
from taskyard.cli.kit.output import print_json
from taskyard.database import schema
from taskyard.database.engine import current_engine


@click.group("db")
def group() -> None:
    """Database schema: upgrade, current."""


@group.command("upgrade", cls=OperatorCommand)
@json_option
def upgrade(*, as_json: bool) -> None:
    """Migrate the schema to the latest revision, in one transaction."""
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
    """Show the schema revision, and whether it is the latest."""
    seen = schema.standing(current_engine())
    if as_json:
        print_json({"current": seen.current, "head": seen.head, "is_current": seen.is_current})
    elif seen.is_current:
        click.echo(f"{seen.current} (head)")
    else:
        click.echo(f"{seen.current or 'not migrated'}; head is {seen.head}; run: celery -A tasks db upgrade")
