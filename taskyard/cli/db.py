"""`celery -A tasks db`: the database schema, and whose the broker is."""

import click

from taskyard.beat.engine.leadership import current_leader
from taskyard.broker.admin.queue_control import QueueControl
from taskyard.broker.server.client import shared_client
from taskyard.broker.server.ownership import adopt, owner_of
from taskyard.cli.kit.common_options import change_options, check_confirmed, destructive_options, json_option
from taskyard.cli.kit.exit_codes import FailedError, OperatorCommand
from taskyard.cli.kit.output import print_json
from taskyard.cli.kit.recorded_changes import logged_change, recorded_transaction
from taskyard.database.engine import current_engine
from taskyard.migrations import schema
from taskyard.settings.loading import current_settings
from taskyard.tasks.known_queues import known_queues
from taskyard.tasks.platform_identity import own_platform


@click.group("db")
def group() -> None:
    """Database schema: upgrade, current; and make the broker this platform's."""


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


@group.command("adopt-broker", cls=OperatorCommand)
@destructive_options(needs_reason=True)
@json_option
def adopt_broker(*, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Make the keys under TASKYARD_KEY_PREFIX this platform's, with all that waits there."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    settings, own = current_settings(), own_platform()
    if own is None:
        raise FailedError("the database does not answer, or is not migrated; run: celery -A tasks db upgrade")
    client, prefix = shared_client(settings.redis_url), settings.taskyard_key_prefix
    owner = owner_of(client, prefix)
    is_ours = owner is not None and owner.id == own.id
    if not is_ours and (users := _users(QueueControl(client, prefix))):
        raise FailedError(f"nothing was changed: {users} still use the keys under {prefix!r}; stop them first")
    if yes and not is_ours:
        with logged_change("db adopt-broker", prefix, reason=reason, facts={"from": owner.name if owner else None}):
            adopt(client, prefix, own)
    if as_json:
        print_json({"prefix": prefix, "from": owner.name if owner else None, "to": own.name, "changed": not is_ours})
    elif is_ours:
        click.echo(f"{prefix}: already of {own.name}")
    else:
        would = "would become" if dry_run else "is now"
        click.echo(f"{prefix}: {would} of {own.name}; it was of {owner.name if owner else 'nobody'}")


def _users(control: QueueControl) -> str:
    """Say which processes use the broker; empty: none that could be seen."""
    settings = current_settings()
    has_workers = any(control.counts(queue).consumers for queue in known_queues())
    leader = current_leader(shared_client(settings.redis_url), settings.taskyard_key_prefix)
    return " and ".join([*(["workers"] if has_workers else []), *([f"beat {leader.owner}"] if leader else [])])
