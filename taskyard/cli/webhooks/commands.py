"""`celery -A tasks webhooks`: endpoints, deliveries, and sending again."""

from datetime import timedelta
from uuid import UUID

import click

from taskyard.cli.kit.common_options import json_option, reason_option
from taskyard.cli.kit.durations import DurationParam
from taskyard.cli.kit.exit_codes import OperatorCommand
from taskyard.cli.kit.output import print_facts, print_json
from taskyard.cli.webhooks import deliveries, endpoints, sending
from taskyard.cli.webhooks.errors import WebhookCommand
from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session
from taskyard.history.operator_log import record_operation
from taskyard.settings.loading import current_settings
from taskyard.webhooks.delivery.endpoints import rotate_secret as replace_secret
from taskyard.webhooks.signing.key_vault import VaultKeyError, new_master_key


@click.group("webhooks")
def group() -> None:
    """Webhooks: endpoints, deliveries, send again."""


group.add_command(endpoints.group)
group.add_command(deliveries.group)
group.add_command(sending.send_test)
group.add_command(sending.redeliver)
group.add_command(sending.recover)


@group.command("rotate-secret", cls=WebhookCommand)
@click.argument("endpoint_id", metavar="ENDPOINT", type=click.UUID)
@click.option(
    "--overlap",
    type=DurationParam(),
    default="24h",
    show_default=True,
    help="How long the old secret signs beside the new one; at most 7d.",
)
@reason_option
@json_option
def rotate_secret(*, endpoint_id: UUID, overlap: timedelta, reason: str, as_json: bool) -> None:
    """Give an endpoint a new secret; it is printed here, once."""
    with open_session() as session, session.begin():
        secret = replace_secret(session, current_settings(), endpoint_id, overlap)
        seconds = {"overlap_seconds": overlap.total_seconds()}
        record_operation(session, "webhooks rotate-secret", str(endpoint_id), reason=reason, facts=seconds)
    facts = {"endpoint_id": endpoint_id, "secret": secret, "old_signs_until": utc_now() + overlap}
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)
        click.echo("The secret is not shown again: give it to the receiver now.", err=True)


@group.command("new-key", cls=OperatorCommand)
@click.option("--id", "key_id", metavar="ID", help="Names the key in what it seals; default: today's date.")
def new_key(*, key_id: str | None) -> None:
    """Make a master key for WEBHOOK_SECRET_KEYS, which encrypts the endpoints' secrets; nothing is stored."""
    try:
        key = new_master_key(f"k{utc_now():%Y%m%d}" if key_id is None else key_id)
    except VaultKeyError as error:
        raise click.UsageError(str(error)) from error
    click.echo(key.reveal())
    click.echo("Put it first in WEBHOOK_SECRET_KEYS, before the older keys and a comma; keep it secret.", err=True)
