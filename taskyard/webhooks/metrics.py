"""The state of webhooks in numbers, for metrics."""

from collections.abc import Iterator

from sqlalchemy import case, func
from sqlmodel import Session, col, select

from taskyard.database.columns import utc_now
from taskyard.gauges import GaugeSample, age_seconds, gauges_by_label
from taskyard.webhooks.models import OPEN_STATES, Delivery, Endpoint

COUNTED = (*OPEN_STATES, "parked", "exhausted")  # not the delivered ones, which only grow


def figures(session: Session) -> Iterator[GaugeSample]:
    """Return gauges: open, parked and exhausted deliveries, the oldest overdue one, and endpoints by health."""
    rows = session.exec(
        select(Delivery.state, func.count()).where(col(Delivery.state).in_(COUNTED)).group_by(Delivery.state)
    ).all()
    counts = {**dict.fromkeys(COUNTED, 0), **dict(rows)}
    yield from gauges_by_label(
        "taskyard_webhook_deliveries", "Deliveries that are not delivered", "state", counts.items()
    )
    due = select(func.min(Delivery.next_attempt_at)).where(col(Delivery.state).in_(OPEN_STATES))
    late = age_seconds(session.exec(due).one())
    yield GaugeSample("taskyard_webhook_late_seconds", "How long the most overdue delivery has been due", late)
    health = case(
        (col(Endpoint.enabled).is_(False), "disabled"),
        (col(Endpoint.paused_until) > utc_now(), "paused"),
        (col(Endpoint.failing_since).is_not(None), "failing"),
        else_="ok",
    )
    found = dict(session.exec(select(health, func.count()).select_from(Endpoint).group_by(health)).all())
    healths = ((name, found.get(name, 0)) for name in ("ok", "failing", "paused", "disabled"))
    yield from gauges_by_label("taskyard_webhook_endpoints", "Endpoints", "health", healths)
