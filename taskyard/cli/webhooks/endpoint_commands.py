"""`celery -A tasks webhooks endpoints`: subscribers' URLs."""

import sys
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import click

from taskyard.cli.kit.common_options import change_options, check_confirmed, destructive_options, json_option
from taskyard.cli.kit.durations import DurationListParam
from taskyard.cli.kit.or_none import OrNone
from taskyard.cli.kit.output import print_facts, print_json
from taskyard.cli.kit.tables import print_table
from taskyard.cli.webhooks.keys import print_with_key
from taskyard.cli.webhooks.send_commands import enqueue_or_report
from taskyard.cli.webhooks.webhook_command import ENDPOINT_ID, WebhookCommand
from taskyard.database.engine import open_session
from taskyard.history.operator_log import record_operation
from taskyard.settings.loading import current_settings
from taskyard.webhooks.delivery import endpoint_changes, endpoints
from taskyard.webhooks.delivery.endpoint_changes import EndpointChanges
from taskyard.webhooks.operators.queries import EndpointView, list_endpoints, public_keys, show_endpoint

endpoint_argument = click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT_ID)


@click.group("endpoints")
def group() -> None:
    """Endpoints: list, add, show, edit, enable, disable, remove."""


@group.command("ls", cls=WebhookCommand)
@json_option
def ls(*, as_json: bool) -> None:
    """List endpoints, oldest first."""
    with open_session() as session:
        views = list_endpoints(session)
    if as_json:
        print_json({"items": [view.model_dump(mode="json") for view in views]})
        return
    columns = ("id", "url", "events", "health", "open", "delivered", "exhausted", "parked", "description")
    print_table(columns, [_row(view) for view in views])


@group.command("show", cls=WebhookCommand)
@endpoint_argument
@json_option
def show(*, endpoint_id: UUID, as_json: bool) -> None:
    """Show one endpoint with its public Ed25519 keys, without its secrets and header values."""
    with open_session() as session:
        view = show_endpoint(session, endpoint_id)
        keys = public_keys(session, current_settings(), endpoint_id)
    if as_json:
        print_json({**view.model_dump(mode="json"), "public_keys": keys})
    else:
        facts = {name: value for name, value in view.model_dump().items() if value is not None}
        print_facts({**facts, **({"public_keys": keys} if keys else {})})


@group.command("add", cls=WebhookCommand)
@click.argument("url")
@click.option("--event", "patterns", multiple=True, required=True, metavar="FILTER", help="A type, prefix.*, or *.")
@click.option("--description", default="", metavar="TEXT", help="Free text.")
@click.option("--max-concurrency", type=int, metavar="N", help="Most requests in flight, 1-1000.")
@click.option("--rate", "rate_per_second", type=float, metavar="N", help="Most requests per second.")
@click.option("--retry-delays", type=DurationListParam(), metavar="5s,5m,2h", help="Waits between attempts.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent with each request.")
@click.option("--standard/--no-standard", "sends_standard", default=True, help="Standard Webhooks headers.")
@click.option("--predictify/--no-predictify", "sends_predictify", default=None, help="X-Predictify headers.")
@click.option("--ed25519", "uses_ed25519", is_flag=True, help="Sign with an Ed25519 key (v1a), not a shared secret.")
@click.option("--secret-stdin", is_flag=True, help="Read the secret (whsec_ or whsk_) from stdin.")
@change_options
@json_option
def add(  # noqa: PLR0913 - an option each
    *,
    url: str,
    patterns: tuple[str, ...],
    headers: tuple[str, ...],
    retry_delays: tuple[timedelta, ...] | None,
    secret_stdin: bool,
    reason: str,
    as_json: bool,
    **plain: Any,
) -> None:
    """Register an endpoint; prints its secret once, or its public Ed25519 key."""
    options = endpoints.EndpointOptions(
        **plain,
        extra_headers=_read_headers(headers),
        retry_delays=retry_delays,
        secret=sys.stdin.readline().strip() if secret_stdin else None,
    )
    with open_session() as session, session.begin():
        endpoint, key = endpoints.register(session, current_settings(), url, patterns, options)
        logged = {"events": list(patterns)}
        record_operation(session, "webhooks endpoints add", str(endpoint.id), reason=reason, facts=logged)
        facts: dict[str, Any] = {"id": endpoint.id, "url": endpoint.url, "events": list(patterns)}
    print_with_key(facts, key, as_json=as_json)


@group.command("edit", cls=WebhookCommand)
@endpoint_argument
@click.option("--url", help="Another URL; clears pauses and failures.")
@click.option("--event", "patterns", multiple=True, metavar="FILTER", help="Instead of the present filters.")
@click.option("--description", metavar="TEXT", help="Free text.")
@click.option("--max-concurrency", type=OrNone(click.INT), metavar="N", help="Most requests in flight; none: default.")
@click.option("--rate", "rate_per_second", type=OrNone(click.FLOAT), metavar="N", help="Requests per second, or none.")
@click.option(
    "--retry-delays",
    type=OrNone(DurationListParam()),
    metavar="5s,5m,2h",
    help="Between attempts, or none.",
)
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Instead of the present ones.")
@click.option("--no-headers", is_flag=True, help="Send no extra headers any more.")
@click.option("--standard/--no-standard", "sends_standard", default=None, help="Standard Webhooks headers.")
@click.option("--predictify/--no-predictify", "sends_predictify", default=None, help="X-Predictify headers.")
@change_options
@json_option
def edit(
    *, endpoint_id: UUID, headers: tuple[str, ...], no_headers: bool, reason: str, as_json: bool, **plain: Any
) -> None:
    """Change an endpoint; what is not given stays."""
    given = {name: value for name, value in plain.items() if value is not None and value != ()}
    changes = {name: None if value is OrNone.NONE else value for name, value in given.items()}
    if headers and no_headers:
        raise click.UsageError("--header and --no-headers exclude each other")
    if headers or no_headers:
        changes["extra_headers"] = _read_headers(headers)
    if not changes:
        raise click.UsageError("nothing to change was given")
    with open_session() as session, session.begin():
        changed = endpoint_changes.edit(session, current_settings(), endpoint_id, cast("EndpointChanges", changes))
        record_operation(session, "webhooks endpoints edit", str(endpoint_id), reason=reason, facts=changed)
    if as_json:
        print_json({"id": endpoint_id, "changed": changed})
    else:
        click.echo(f"{endpoint_id} changed: {', '.join(changed) or 'nothing, the values were the same'}")


@group.command("enable", cls=WebhookCommand)
@endpoint_argument
@change_options
@json_option
def enable(*, endpoint_id: UUID, reason: str, as_json: bool) -> None:
    """Send to an endpoint again, starting with its parked deliveries; clears its failure count."""
    with open_session() as session, session.begin():
        endpoint = endpoints.find(session, endpoint_id)
        count, released = endpoints.enable(session, endpoint, current_settings())
        facts = {"released": count}
        record_operation(session, "webhooks endpoints enable", str(endpoint_id), reason=reason, facts=facts)
    _say(f"enabled, {count} parked deliveries are due", endpoint_id, count, as_json=as_json)
    enqueue_or_report(released)


@group.command("disable", cls=WebhookCommand)
@endpoint_argument
@destructive_options(needs_reason=True)
@json_option
def disable(*, endpoint_id: UUID, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Stop sending to an endpoint; its open deliveries are parked until it is enabled."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    with open_session() as session, session.begin():
        endpoint = endpoints.find(session, endpoint_id)
        if dry_run:
            open_now = _open_deliveries(show_endpoint(session, endpoint_id))
            _say(f"would be disabled, parking {open_now} deliveries", endpoint_id, open_now, as_json=as_json)
            return
        parked = endpoints.disable(session, endpoint, reason)
        facts = {"parked": parked}
        record_operation(session, "webhooks endpoints disable", str(endpoint_id), reason=reason, facts=facts)
    _say(f"disabled, {parked} deliveries are parked", endpoint_id, parked, as_json=as_json)


@group.command("rm", cls=WebhookCommand)
@endpoint_argument
@destructive_options(needs_reason=False)
@json_option
def rm(*, endpoint_id: UUID, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Remove an endpoint without deliveries; one with deliveries can only be disabled."""
    check_confirmed(yes=yes, dry_run=dry_run)
    with open_session() as session:
        endpoints.remove(session, endpoint_id)
        if not dry_run:
            record_operation(session, "webhooks endpoints rm", str(endpoint_id), reason=reason)
            session.commit()
    _say("would be removed" if dry_run else "removed", endpoint_id, 0, as_json=as_json)


def _say(what: str, endpoint_id: UUID, deliveries: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": endpoint_id, "result": what.partition(",")[0], "deliveries": deliveries})
    else:
        click.echo(f"{endpoint_id} {what}")


def _row(view: EndpointView) -> tuple[Any, ...]:
    counts = view.deliveries
    begin = (view.id, view.url, ", ".join(view.patterns), view.health, _open_deliveries(view))
    return (*begin, counts["delivered"], counts["exhausted"], counts["parked"], view.description)


def _open_deliveries(view: EndpointView) -> int:
    return view.deliveries["pending"] + view.deliveries["retrying"]


def _read_headers(texts: tuple[str, ...]) -> dict[str, str] | None:
    headers: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon:
            raise click.UsageError("a --header is written 'Name: value'")  # its text may be a credential
        headers[name.strip()] = value.strip()
    return headers or None
