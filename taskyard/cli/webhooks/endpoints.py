"""`celery -A tasks webhooks endpoints`: subscribers' URLs."""

import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import click

from taskyard.cli.kit.common_options import check_confirmed, destructive_options, json_option, reason_option
from taskyard.cli.kit.durations import DurationListParam
from taskyard.cli.kit.output import print_facts, print_json
from taskyard.cli.kit.tables import print_table
from taskyard.cli.webhooks.errors import WebhookCommand
from taskyard.cli.webhooks.sending import hand_over
from taskyard.database.engine import open_session
from taskyard.history.operator_log import record_operation
from taskyard.settings.loading import current_settings
from taskyard.webhooks.delivery import endpoints
from taskyard.webhooks.operators.queries import EndpointView, list_endpoints, show_endpoint

endpoint_argument = click.argument("endpoint_id", metavar="ENDPOINT", type=click.UUID)


@click.group("endpoints")
def group() -> None:
    """Endpoints: list, add, show, enable, disable, remove."""


@group.command("ls", cls=WebhookCommand)
@json_option
def ls(*, as_json: bool) -> None:
    """List endpoints, the oldest first."""
    with open_session() as session:
        views = list_endpoints(session)
    if as_json:
        print_json({"items": [view.model_dump(mode="json") for view in views]})
        return
    columns = ("id", "url", "events", "health", "to come", "delivered", "exhausted", "parked", "description")
    print_table(columns, [_row(view) for view in views])


@group.command("show", cls=WebhookCommand)
@endpoint_argument
@json_option
def show(*, endpoint_id: UUID, as_json: bool) -> None:
    """Show one endpoint; its secrets and the values of its headers are never shown."""
    with open_session() as session:
        view = show_endpoint(session, endpoint_id)
    if as_json:
        print_json(view.model_dump(mode="json"))
    else:
        print_facts({name: value for name, value in view.model_dump().items() if value is not None})


@group.command("add", cls=WebhookCommand)
@click.argument("url")
@click.option("--event", "patterns", multiple=True, required=True, metavar="FILTER", help="A type, prefix.*, or *.")
@click.option("--description", default="", metavar="TEXT", help="For people.")
@click.option("--max-concurrency", type=int, metavar="N", help="Requests in flight, 1-1000.")
@click.option("--rate", "rate_per_second", type=float, metavar="N", help="Requests per second at most.")
@click.option("--retry-delays", type=DurationListParam(), metavar="5s,5m,2h", help="Waits between attempts.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent with each request.")
@click.option("--standard/--no-standard", "sends_standard", default=True, help="Standard Webhooks headers.")
@click.option("--predictify/--no-predictify", "sends_predictify", default=True, help="X-Predictify headers.")
@click.option("--secret-stdin", is_flag=True, help="Read the secret from stdin instead of making one.")
@json_option
def add(  # noqa: PLR0913 - an option each
    *,
    url: str,
    patterns: tuple[str, ...],
    headers: tuple[str, ...],
    retry_delays: tuple[timedelta, ...] | None,
    secret_stdin: bool,
    as_json: bool,
    **plain: Any,
) -> None:
    """Register an endpoint; its secret is printed here, once."""
    options = endpoints.EndpointOptions(
        **plain,
        extra_headers=_read_headers(headers),
        retry_delays=retry_delays,
        secret=sys.stdin.readline().strip() if secret_stdin else None,
    )
    with open_session() as session, session.begin():
        endpoint, secret = endpoints.register(session, current_settings(), url, patterns, options)
        record_operation(session, "webhooks endpoints add", str(endpoint.id), facts={"events": list(patterns)})
        facts: dict[str, Any] = {"id": endpoint.id, "url": endpoint.url, "events": list(patterns), "secret": secret}
    if as_json:
        print_json(facts)
    else:
        print_facts(facts)
        click.echo("The secret is not shown again: give it to the receiver now.", err=True)


@group.command("enable", cls=WebhookCommand)
@endpoint_argument
@reason_option
@json_option
def enable(*, endpoint_id: UUID, reason: str, as_json: bool) -> None:
    """Send to an endpoint again, starting with what was parked; its record of failures is cleared."""
    with open_session() as session, session.begin():
        endpoint = endpoints.find(session, endpoint_id)
        released, called = endpoints.enable(session, endpoint, current_settings())
        facts = {"released": released}
        record_operation(session, "webhooks endpoints enable", str(endpoint_id), reason=reason, facts=facts)
    _say(f"enabled, {released} parked deliveries are due", endpoint_id, released, as_json=as_json)
    hand_over(called)


@group.command("disable", cls=WebhookCommand)
@endpoint_argument
@destructive_options(needs_reason=True)
@json_option
def disable(*, endpoint_id: UUID, yes: bool, dry_run: bool, reason: str, as_json: bool) -> None:
    """Stop sending to an endpoint; what was still to come is parked until it is enabled."""
    check_confirmed(yes=yes, dry_run=dry_run, reason=reason, needs_reason=True)
    with open_session() as session, session.begin():
        endpoint = endpoints.find(session, endpoint_id)
        if dry_run:
            open_now = _to_come(show_endpoint(session, endpoint_id))
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
    """Remove an endpoint that never had a delivery; disable one that had, so that its history stays."""
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
    begin = (view.id, view.url, ", ".join(view.patterns), view.health, _to_come(view))
    return (*begin, counts["delivered"], counts["exhausted"], counts["parked"], view.description)


def _to_come(view: EndpointView) -> int:
    return view.deliveries["pending"] + view.deliveries["retrying"]


def _read_headers(texts: tuple[str, ...]) -> dict[str, str] | None:
    headers: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon:
            raise click.UsageError("a --header is written 'Name: value'")  # its text may be a credential
        headers[name.strip()] = value.strip()
    return headers or None
