"""The state of markets in numbers, for metrics."""

from collections.abc import Iterator

from sqlalchemy import func
from sqlmodel import Session, col, select

from tasks.markets.models import MARKET_STATES, Market, Prediction
from taskyard.gauges import GaugeSample, age_seconds, gauges_by_label


def figures(session: Session) -> Iterator[GaugeSample]:
    """Give markets by state, and predictions whose transaction has not been seen."""
    found = dict(session.exec(select(Market.state, func.count()).group_by(Market.state)).all())
    states = ((state, found.get(state, 0)) for state in MARKET_STATES)
    yield from gauges_by_label("taskyard_markets", "Markets", "state", states)
    query = select(func.count(), func.min(Prediction.created_at)).where(col(Prediction.state) == "pending")
    pending, oldest = session.exec(query).one()
    yield GaugeSample(
        "taskyard_market_predictions_pending", "Predictions that wait for their transaction", float(pending)
    )
    yield GaugeSample("taskyard_market_pending_oldest_seconds", "Age of the oldest of them", age_seconds(oldest))
