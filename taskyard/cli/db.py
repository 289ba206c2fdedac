"""`celery -A tasks db`: the database schema."""

import click

from taskyard.cli.kit.common_options import change_options, json_option
from taskyard.cli.kit.exit_codes import OperatorCommand
from taskyard.cli.kit.output import print_json
from taskyard.cli.kit.recorded_changes import recorded_transaction
from taskyard.database.engine import current_engine
from taskyard.migrations import schema


@click.group("db")
def group() -> None:
    """Database schema: upgrade, current."""


@group.command("upgrade", cls=OperatorCommand)
@change_options
@json_option
def upgrade(*, reason: str, as_json: bool) -> None:
    """Migrate all tables to their latest revisions, in one transaction."""
    before = schema.upgrade(current_engine())
    changed = {seen.owner: seen.head for seen in before if not seen.is_current}
    if changed:  # now the operator log has its table
        with recorded_transaction("db upgrade", reason=reason, facts=changed):
            pass
    if as_json:
        print_json([{"owner": seen.owner, "from": seen.current, "to": seen.head} for seen in before])
        return
    for seen in before:
        if seen.is_current:
            click.echo(f"{seen.owner}: already at {seen.head}")
        else:
            click.echo(f"{seen.owner}: upgraded from {seen.current or 'no tables'} to {seen.head}")


@group.command("current", cls=OperatorCommand)
@json_option
def current(*, as_json: bool) -> None:
    """Show the revision of all tables, and whether it is the head."""
    seen = schema.standings(current_engine())
    if as_json:
        facts = [
            {"owner": one.owner, "current": one.current, "head": one.head, "is_current": one.is_current} for one in seen
        ]
        print_json(facts)
        return
    for one in seen:
        if one.is_current:
            click.echo(f"{one.owner}: {one.current} (head)")
        else:
            click.echo(f"{one.owner}: {one.current or 'not migrated'}; head is {one.head}")
    if not all(one.is_current for one in seen):
        click.echo("run: celery -A tasks db upgrade")
