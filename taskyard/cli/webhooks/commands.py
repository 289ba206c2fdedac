"""`celery -A tasks webhooks`: endpoints, deliveries, resending."""

from datetime import timedelta
from uuid import UUID

import click

from taskyard.cli.kit.common_options import change_options, json_option
from taskyard.cli.kit.durations import DurationParam
from taskyard.cli.kit.exit_codes import OperatorCommand
from taskyard.cli.kit.output import print_result
from taskyard.cli.webhooks import delivery_commands, endpoint_commands, send_commands
from taskyard.cli.webhooks.keys import print_with_key
from taskyard.cli.webhooks.webhook_command import ENDPOINT_ID, WebhookCommand
from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session
from taskyard.history.operator_log import record_operation
from taskyard.settings.loading import current_settings
from taskyard.webhooks.delivery.endpoints import rotate_secret as replace_secret
from taskyard.webhooks.signing.key_vault import VaultKeyError, new_master_key


@click.group("webhooks")
def group() -> None:
    """Webhooks: endpoints, deliveries, resending."""


group.add_command(endpoint_commands.group)
group.add_command(delivery_commands.group)
group.add_command(send_commands.send_test)
group.add_command(send_commands.redeliver)
group.add_command(send_commands.recover)


@group.command("rotate-secret", cls=WebhookCommand)
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT_ID)
@click.option(
    "--overlap",
    type=DurationParam(),
    default="24h",
    show_default=True,
    help="How long the old secret also signs; at most 7d.",
)
@change_options
@json_option
def rotate_secret(*, endpoint_id: UUID, overlap: timedelta, reason: str, as_json: bool) -> None:
    """Give an endpoint a new secret of its kind; print it once, or its public Ed25519 key."""
    with open_session() as session, session.begin():
        key = replace_secret(session, current_settings(), endpoint_id, overlap)
        seconds = {"overlap_seconds": overlap.total_seconds()}
        record_operation(session, "webhooks rotate-secret", str(endpoint_id), reason=reason, facts=seconds)
    print_with_key({"endpoint_id": endpoint_id, "old_signs_until": utc_now() + overlap}, key, as_json=as_json)


@group.command("new-key", cls=OperatorCommand)
@click.option("--id", "key_id", metavar="ID", help="The key's name; default: today's date.")
@json_option
def new_key(*, key_id: str | None, as_json: bool) -> None:
    """Make a master key for WEBHOOK_SECRET_KEYS, which encrypts the endpoints' secrets; nothing is stored."""
    try:
        key = new_master_key(f"k{utc_now():%Y%m%d}" if key_id is None else key_id)
    except VaultKeyError as error:
        raise click.UsageError(str(error)) from error
    print_result(key.reveal(), as_json=as_json, key=key.reveal())
    click.echo("Put it first in WEBHOOK_SECRET_KEYS, before the older keys and a comma; keep it secret.", err=True)
