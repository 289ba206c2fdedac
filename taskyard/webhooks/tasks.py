"""The webhook tasks: one line of work each, and the dependencies of their handlers."""

import socket
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache
from ipaddress import ip_network
from ssl import SSLError
from typing import Any, cast

from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session
from taskyard.settings.group import SettingsError
from taskyard.settings.loading import current_settings
from taskyard.settings.platform import Settings
from taskyard.settings.queues import MAINTENANCE, SLOW_WEBHOOKS, WEBHOOKS
from taskyard.tasks.call_options import CallOptions
from taskyard.tasks.declaration import task
from taskyard.tasks.execution import queue_of, was_redelivered
from taskyard.tasks.platform_task import PlatformTask
from taskyard.tasks.policy import Exponential, Policy
from taskyard.tasks.sending import enqueue_many
from taskyard.tasks.start_checks import before_work, said_at_start
from taskyard.webhooks import handlers
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.delivery.store import SqlDeliveryStore
from taskyard.webhooks.http.resolver import tls_context
from taskyard.webhooks.http.webhook_client import AiohttpWebhookClient, ClientOptions
from taskyard.webhooks.payloads import CleanUpWebhooks, DeliverWebhook, FanOutEvent, SweepWebhooks
from taskyard.webhooks.retention import RemovedWebhooks, clean_up

# The schedule of a delivery lives in SQL and ends it there; the attempts of its task only bound our own faults.
DELIVERY = Policy(max_attempts=1000, backoff=Exponential(base=timedelta(seconds=2), cap=timedelta(minutes=5)))
SWEEP = Policy(max_attempts=1)  # the next one comes on schedule


def reopen(payload: DeliverWebhook) -> None:
    """Give the delivery of a dead letter fresh attempts before its task is sent again."""
    open_store().reopen(payload.delivery_id)


@task("webhooks.deliver", DeliverWebhook, queue=WEBHOOKS, policy=DELIVERY, on_redrive=reopen)
def deliver(payload: DeliverWebhook) -> handlers.DeliveryReport:
    """Send one webhook delivery; see :func:`taskyard.webhooks.handlers.deliver`."""
    dependencies = handlers.DeliveryDependencies(
        open_store(),
        http_client(),
        enqueue_deliveries,
        current_settings(),
        socket.gethostname(),
        run_id=str(cast("PlatformTask", deliver).request.id or ""),
        is_slow_lane=queue_of(cast("PlatformTask", deliver)) == SLOW_WEBHOOKS.name,
        is_redelivered=was_redelivered(deliver),
    )
    return handlers.deliver(payload, dependencies)


@task("webhooks.fan_out", FanOutEvent, queue=MAINTENANCE)
def fan_out(payload: FanOutEvent) -> handlers.FanOutReport:
    """Make the deliveries of one event; see :func:`taskyard.webhooks.handlers.fan_out`."""
    return handlers.fan_out(payload, open_store(), enqueue_deliveries)


@task("webhooks.sweep", SweepWebhooks, queue=MAINTENANCE, policy=SWEEP)
def sweep(_payload: SweepWebhooks) -> handlers.SweepReport:
    """Enqueue the deliveries that are due; see :func:`taskyard.webhooks.handlers.sweep`."""
    open_store().resolve_dead_letters()
    enqueue_fan_outs(open_store().pending_fan_outs())
    return handlers.sweep(open_store(), enqueue_deliveries, current_settings())


@task("webhooks.cleanup", CleanUpWebhooks, queue=MAINTENANCE)
def cleanup(_payload: CleanUpWebhooks) -> RemovedWebhooks:
    """Delete what is old; see :func:`taskyard.webhooks.retention.clean_up`."""
    return clean_up(open_session, current_settings(), utc_now())


def enqueue_fan_outs(event_ids: Sequence[str]) -> None:
    """Enqueue the making of these events' deliveries; one with a live task is not enqueued again."""
    for event_id in event_ids:
        fan_out.enqueue(FanOutEvent(event_id=event_id), dedup_key=f"webhook-fan-out:{event_id}")


def enqueue_deliveries(due: Iterable[DueDelivery]) -> None:
    """
    Enqueue deliveries, each under its endpoint's group key and in its lane; one with a live task is not enqueued again.

    A released delivery, whose last task may be about to end, is enqueued without that check.
    """
    rows = {row.delivery_id: row for row in due}

    def options(payload: DeliverWebhook) -> CallOptions:
        row = rows[payload.delivery_id]
        queue, priority = row.lane
        chosen: dict[str, Any] = {"group_key": str(row.endpoint_id), "queue": queue.name, "priority": priority}
        if row.has_task:
            chosen["dedup_key"] = f"webhook:{row.delivery_id}"
        if row.wait > timedelta(0):
            chosen["countdown"] = row.wait.total_seconds()
        return cast("CallOptions", chosen)

    enqueue_many(deliver, [DeliverWebhook(delivery_id=delivery_id) for delivery_id in rows], each=options)


@before_work(WEBHOOKS, Settings)
def check_settings(settings: Settings) -> None:
    """
    Read the extra authorities once: the client does so at its first request.

    Raises:
        SettingsError: The file is not there, cannot be read, or holds no certificate.
    """
    try:
        tls_context(settings.webhook_ca_file)
    except OSError as error:  # so are the errors of TLS
        reason = "holds no certificate in PEM" if isinstance(error, SSLError) else error.strerror
        raise SettingsError(f"WEBHOOK_CA_FILE: {settings.webhook_ca_file}: {reason}") from error


@said_at_start(WEBHOOKS, Settings)
def missing_keys(settings: Settings) -> str:
    """Say that a worker cannot sign: no error, since endpoints may come later, and other tasks need no keys."""
    is_set = settings.webhook_secret_keys is not None
    return "" if is_set else "WEBHOOK_SECRET_KEYS is not set: this worker can sign no request"


@lru_cache(maxsize=1)
def open_store() -> SqlDeliveryStore:
    """Return the store on this process's database."""
    return SqlDeliveryStore(open_session, current_settings())


@lru_cache(maxsize=1)
def http_client() -> AiohttpWebhookClient:
    """Return this process's HTTP client; it starts its loop with the first request, also after a fork."""
    settings = current_settings()
    nets = tuple(ip_network(net) for net in settings.webhook_allow_nets)
    return AiohttpWebhookClient(
        ClientOptions(allow_nets=nets, allow_http=settings.webhook_allow_http, extra_ca_file=settings.webhook_ca_file)
    )
