"""The state of markets in numbers, for metrics."""

from collections.abc import Iterator

from sqlalchemy import func
from sqlmodel import Session, col, select

from tasks.markets.models import MARKET_STATES, Conflict, Market, OracleRefusal, Prediction
from taskyard.gauges import GaugeSample, age_seconds, gauges_by_label


def figures(session: Session) -> Iterator[GaugeSample]:
    """Give markets by state, and predictions whose transaction has not been seen."""
    found = dict(session.exec(select(Market.state, func.count()).group_by(Market.state)).all())
    states = ((state, found.get(state, 0)) for state in MARKET_STATES)
    yield from gauges_by_label("taskyard_markets", "Markets", "state", states)
    conflicts = select(func.count()).select_from(Conflict).where(col(Conflict.decision).is_(None))
    refusals = (
        select(func.count())
        .select_from(OracleRefusal)
        .join(Market, col(Market.id) == col(OracleRefusal.market_id))
        .where(col(OracleRefusal.decision).is_(None), col(Market.state) != "resolved")
    )
    kinds = (("conflict", session.exec(conflicts).one()), ("refusal", session.exec(refusals).one()))
    yield from gauges_by_label("taskyard_market_reviews", "Events of markets that nobody has decided on", "kind", kinds)
    query = select(func.count(), func.min(Prediction.created_at)).where(col(Prediction.state) == "pending")
    pending, oldest = session.exec(query).one()
    yield GaugeSample(
        "taskyard_market_predictions_pending", "Predictions that wait for their transaction", float(pending)
    )
    yield GaugeSample("taskyard_market_pending_oldest_seconds", "Age of the oldest of them", age_seconds(oldest))
