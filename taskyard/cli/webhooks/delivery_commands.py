"""`celery -A tasks webhooks deliveries`: what was sent, when, and the answers. Bodies are never printed."""

from typing import Any
from uuid import UUID

import click

from taskyard.cli.kit.common_options import json_option, page_options, since_option, until_option
from taskyard.cli.kit.output import milliseconds, print_block, print_facts, print_json
from taskyard.cli.kit.tables import print_table
from taskyard.cli.webhooks.webhook_command import DELIVERY_ID, ENDPOINT_ID, WebhookCommand
from taskyard.database.engine import open_session
from taskyard.webhooks.delivery import endpoints
from taskyard.webhooks.models import STATES
from taskyard.webhooks.operators.queries import (
    AttemptView,
    DeliveryFilter,
    answer_excerpts,
    list_deliveries,
    show_delivery,
)


@click.group("deliveries")
def group() -> None:
    """Deliveries: list, show."""


@group.command("ls", cls=WebhookCommand)
@click.option("--endpoint", "endpoint_id", type=ENDPOINT_ID, metavar="ID", help="Only to this endpoint.")
@click.option("--state", type=click.Choice(STATES), help="Only in this state.")
@click.option("--type", "event_type", metavar="TYPE", help="Only events of this type.")
@since_option
@until_option
@page_options
@json_option
def ls(*, limit: int, after: str | None, as_json: bool, **filters: Any) -> None:
    """List deliveries, newest first."""
    wanted = DeliveryFilter(**filters)
    with open_session() as session:
        if wanted.endpoint_id is not None:
            endpoints.find(session, wanted.endpoint_id)
        page = list_deliveries(session, wanted, limit=limit, after=after)
    if as_json:
        print_json({"items": [view.model_dump(mode="json") for view in page.rows], "next": page.after})
        return
    columns = ("id", "event", "endpoint", "state", "attempts", "last answer", "created (UTC)", "next attempt (UTC)")
    rows = [
        (
            view.id,
            view.event_type,
            view.endpoint_id,
            view.state,
            view.attempts,
            view.last_answer,
            view.created_at,
            view.next_attempt_at,
        )
        for view in page.rows
    ]
    print_table(columns, rows)
    if page.after:
        click.echo(f"more: --after {page.after}", err=True)


@group.command("show", cls=WebhookCommand)
@click.argument("delivery_id", metavar="DELIVERY", type=DELIVERY_ID)
@click.option("--answers", is_flag=True, help="Also print the stored part of the receiver's answers.")
@json_option
def show(*, delivery_id: UUID, answers: bool, as_json: bool) -> None:
    """Show one delivery with the timeline of its attempts."""
    if answers and as_json:
        raise click.UsageError("--answers cannot be combined with --json")
    with open_session() as session:
        details = show_delivery(session, delivery_id)
        excerpts = answer_excerpts(session, delivery_id) if answers else {}
    if as_json:
        print_json(details.model_dump(mode="json"))
        return
    facts = details.model_dump(exclude={"timeline"})
    print_facts({name: value for name, value in facts.items() if value is not None})
    click.echo()
    columns = ("attempt", "started (UTC)", "answer", "total", "phases", "address", "trigger", "next attempt (UTC)")
    print_table((*columns, "worker"), [_row(attempt) for attempt in details.timeline])
    for number, text in excerpts.items():
        print_block(f"answer to attempt {number}", text)


def _row(attempt: AttemptView) -> tuple[Any, ...]:
    phases = ", ".join(f"{name.removesuffix('_ms')} {value:.1f} ms" for name, value in attempt.phases.items())
    trigger = f"{attempt.trigger} by {attempt.by}" if attempt.by else attempt.trigger
    begin = (attempt.number, attempt.started_at, attempt.answer, milliseconds(attempt.total_ms), phases)
    return (*begin, attempt.remote_ip, trigger, attempt.next_attempt_at, attempt.worker)
