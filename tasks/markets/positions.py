"""What the database says about positions on the chain; reconciliation compares it with the chain itself."""

from collections import defaultdict

from sqlalchemy import func, select
from sqlmodel import Session, col

from tasks.markets.models import Market, Prediction, User


def market_ids(session: Session) -> list[str]:
    """Return the ids of all markets, in order."""
    return list(session.scalars(select(col(Market.id)).order_by(col(Market.id))))


def has_market(session: Session, market_id: str) -> bool:
    """Return whether there is such a market."""
    return session.scalar(select(col(Market.id)).where(col(Market.id) == market_id)) is not None


def positions(session: Session, market_id: str, up_to_ledger: int) -> dict[tuple[str, str], int]:
    """
    Sum the confirmed predictions of a market by (address, outcome), in smallest units.

    Predictions of later ledgers are left out: the chain was read at that ledger and cannot know them. One without a
    ledger number, as an import may leave it, counts.
    """
    rows = session.connection().execute(
        select(col(User.address), col(Prediction.outcome), col(Prediction.amount))
        .join(User, col(User.id) == col(Prediction.user_id))
        .where(
            col(Prediction.market_id) == market_id,
            col(Prediction.state) == "confirmed",
            col(Prediction.ledger).is_(None) | (col(Prediction.ledger) <= up_to_ledger),
        )
    )
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for address, outcome, amount in rows:
        sums[address, outcome] += amount
    return dict(sums)


def left_out(session: Session, market_id: str, up_to_ledger: int) -> int:
    """Count the confirmed predictions of later ledgers, which :func:`positions` leaves out."""
    query = select(func.count()).where(
        col(Prediction.market_id) == market_id,
        col(Prediction.state) == "confirmed",
        col(Prediction.ledger) > up_to_ledger,
    )
    return session.scalar(query) or 0
