"""`celery -A tasks webhooks send-test|redeliver|recover`: send now, at an operator's request."""

import getpass
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any
from uuid import UUID

import click
from kombu.exceptions import OperationalError
from redis import RedisError

from taskyard.cli.kit.common_options import (
    WaitSecondsParam,
    change_options,
    check_confirmed,
    check_selection,
    destructive_options,
    json_option,
    since_option,
    until_option,
)
from taskyard.cli.kit.exit_codes import FailedError, PartlyDoneError
from taskyard.cli.kit.output import print_json
from taskyard.cli.kit.recorded_changes import logged_bulk_change
from taskyard.cli.webhooks.webhook_command import DELIVERY_ID, ENDPOINT_ID, WebhookCommand
from taskyard.database.engine import open_session
from taskyard.history.operator_log import record_operation
from taskyard.webhooks.delivery import endpoints
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.event_types import check_type
from taskyard.webhooks.operators import replay, test_delivery
from taskyard.webhooks.operators.queries import AttemptView, show_delivery
from taskyard.webhooks.tasks import deliver, enqueue_deliveries

POLL_INTERVAL = 0.1  # seconds
wait_option = click.option(
    "--wait",
    "wait_seconds",
    type=WaitSecondsParam(0, 600),
    default=20,
    show_default=True,
    help="Seconds to wait for the attempt; 0: do not wait.",
)


@click.command("send-test", cls=WebhookCommand)
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT_ID)
@wait_option
@change_options
@json_option
def send_test(*, endpoint_id: UUID, wait_seconds: float, reason: str, as_json: bool) -> None:
    """Send the event webhook.test to one endpoint, whatever its subscriptions."""
    with open_session() as session, session.begin():
        due = test_delivery.add_test(session, endpoint_id)
        record_operation(session, "webhooks send-test", str(endpoint_id), reason=reason)
    enqueue_or_report([due])
    _report_attempt(due.delivery_id, 0, wait_seconds, as_json=as_json)


@click.command("redeliver", cls=WebhookCommand)
@click.argument("delivery_id", metavar="[DELIVERY]", type=DELIVERY_ID, required=False)
@click.option("--failed", is_flag=True, help="Every exhausted delivery that matches the filter, with fresh attempts.")
@click.option("--endpoint", "endpoint_id", type=ENDPOINT_ID, metavar="ID", help="Only to this endpoint.")
@click.option("--type", "event_type", metavar="TYPE", help="Only events of this type.")
@since_option
@until_option
@click.option("--all", "everything", is_flag=True, help="Without any filter.")
@wait_option
@destructive_options(needs_reason=False)
@json_option
def redeliver(  # noqa: PLR0913 - an option each
    *,
    delivery_id: UUID | None,
    failed: bool,
    everything: bool,
    wait_seconds: float,
    yes: bool,
    dry_run: bool,
    reason: str,
    as_json: bool,
    **filters: Any,
) -> None:
    """Make exactly one attempt to send DELIVERY now, or resend many with --failed."""
    if failed == (delivery_id is not None):
        raise click.UsageError("give a DELIVERY, or --failed with a filter")
    check_selection([delivery_id] if delivery_id else [], filters, everything=everything)
    if delivery_id is not None:
        _redeliver_one(delivery_id, reason, wait_seconds, as_json=as_json)
        return
    check_confirmed(yes=yes, dry_run=dry_run)
    if filters["event_type"] is not None:
        check_type(filters["event_type"])
    wanted = replay.FailedDeliveryFilter(**filters)
    with open_session() as session:
        if wanted.endpoint_id is not None:
            endpoints.find(session, wanted.endpoint_id)
        total = replay.count_failed(session, wanted)
    sent = total
    if not dry_run:
        with (
            logged_bulk_change("webhooks redeliver", reason=reason, facts=_plain(filters)) as row,
            open_session() as session,
        ):
            sent = _send_batches(replay.reopen_failed(session, wanted, row.id), total)
    _report_many({"failed": sent}, dry_run=dry_run, as_json=as_json)


@click.command("recover", cls=WebhookCommand)
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENDPOINT_ID)
@since_option
@click.option("--missing", is_flag=True, help="Also events that it never got, for example while it was disabled.")
@destructive_options(needs_reason=False)
@json_option
def recover(  # noqa: PLR0913 - an option each
    *,
    endpoint_id: UUID,
    since: datetime | None,
    missing: bool,
    yes: bool,
    dry_run: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Resend every failed delivery of an endpoint since a given time."""
    check_confirmed(yes=yes, dry_run=dry_run)
    if since is None:
        raise click.UsageError("--since is required, such as --since 2h or --since 2026-01-31T12:00")
    wanted = replay.FailedDeliveryFilter(endpoint_id=endpoint_id, since=since)
    with open_session() as session:
        replay.find_enabled(session, endpoint_id)
        counts = {"failed": replay.count_failed(session, wanted)}
        if missing:
            counts["missing"] = replay.count_missing(session, endpoint_id, since)
    if not dry_run:
        facts = {"since": since.isoformat(), "missing": missing}
        with (
            logged_bulk_change("webhooks recover", str(endpoint_id), reason=reason, facts=facts) as row,
            open_session() as session,
        ):
            batches = [replay.reopen_failed(session, wanted, row.id)]
            batches += [replay.add_missing(session, endpoint_id, since, row.id)] if missing else []
            _send_batches(chain.from_iterable(batches), sum(counts.values()))
    _report_many(counts, dry_run=dry_run, as_json=as_json)


def enqueue_or_report(due: Sequence[DueDelivery]) -> None:
    """
    Enqueue deliveries that are committed and due.

    Raises:
        PartlyDoneError: The broker is unavailable; the sweeper enqueues them later.
    """
    try:
        enqueue_deliveries(due)
    except (OperationalError, RedisError, OSError) as error:
        raise PartlyDoneError(
            f"{len(due)} deliveries are due, but the broker is unavailable ({error}); the sweeper enqueues them later"
        ) from error


def _plain(filters: dict[str, Any]) -> dict[str, str]:
    """Return the given filters as JSON values."""
    return {name: str(value) for name, value in filters.items() if value is not None}


def _redeliver_one(delivery_id: UUID, reason: str, wait_seconds: float, *, as_json: bool) -> None:
    with open_session() as session, session.begin():
        before = replay.find_delivery(session, delivery_id).attempts
        record_operation(session, "webhooks redeliver", str(delivery_id), reason=reason)
    deliver.delay(delivery_id=delivery_id, manual_by=getpass.getuser())
    _report_attempt(delivery_id, before, wait_seconds, as_json=as_json)


def _report_attempt(delivery_id: UUID, before: int, wait_seconds: float, *, as_json: bool) -> None:
    """Wait for the attempt after number ``before`` and print its result."""
    attempt = _next_attempt(delivery_id, before, wait_seconds)
    answer = attempt.answer if attempt else None
    if as_json:
        print_json({"delivery_id": delivery_id, "attempt": attempt and attempt.number, "answer": answer})
    else:
        click.echo(f"{delivery_id} {f'attempt {attempt.number}: {answer}' if attempt else 'enqueued'}")
    if attempt is None and wait_seconds:
        raise PartlyDoneError(f"enqueued, but no attempt was made within {wait_seconds:g} s; is a worker running?")
    if attempt is not None and not attempt.is_success:
        raise FailedError(f"the endpoint did not accept it: {answer}")


def _next_attempt(delivery_id: UUID, before: int, wait_seconds: float) -> AttemptView | None:
    deadline = time.monotonic() + wait_seconds
    while wait_seconds:
        with open_session() as session:
            later = [view for view in show_delivery(session, delivery_id).timeline if view.number > before]
        if later:
            return later[0]
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_INTERVAL)
    return None


def _send_batches(batches: Iterator[list[DueDelivery]], total: int) -> int:
    """Enqueue batch after batch; while the broker is down, update the rows only and leave the rest to the sweeper."""
    sent, refusal = 0, None
    is_hidden = not sys.stderr.isatty()
    with click.progressbar(length=total, label="resending", file=sys.stderr, hidden=is_hidden) as bar:
        for batch in batches:
            sent += len(batch)
            bar.update(len(batch))
            if refusal is None:
                try:
                    enqueue_or_report(batch)
                except PartlyDoneError as error:
                    refusal = error
    if refusal is not None:
        raise PartlyDoneError(f"all {sent} deliveries are due again, but {refusal.message}")
    return sent


def _report_many(counts: dict[str, int], *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({**counts, "dry_run": dry_run})
        return
    words = " and ".join(f"{count} {name}" for name, count in counts.items())
    click.echo(f"{words} deliveries {'would be' if dry_run else 'are'} resent")
