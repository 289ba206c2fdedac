"""The SQL of confirming: match predictions with the transactions that the indexer saw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, case, exists, func, select, update
from sqlmodel import Session, col

from config.settings import MarketSettings
from tasks.markets.models import IndexerEvent, Market, Prediction
from taskyard import EmitEvent
from taskyard.database.columns import utc_now

CONFIRMED_EVENT = "prediction.confirmed"
LONGEST_WAIT = timedelta(hours=1)
HEALING_TIME = timedelta(days=7)  # a failed prediction is confirmed if its transaction turns up so late


@dataclass(frozen=True, slots=True)
class ConfirmationBatch:
    """Counts of one batch of predictions."""

    confirmed: int = 0
    rejected: int = 0  # their market was resolved before
    waiting: int = 0  # looked at, not seen yet
    failed: int = 0

    @property
    def total(self) -> int:
        """How many predictions were looked at."""
        return self.confirmed + self.rejected + self.waiting + self.failed


class ConfirmationStore:
    """Confirms predictions; every batch is one transaction."""

    def __init__(self, open_session: Callable[[], Session], settings: MarketSettings, emit: EmitEvent) -> None:
        self._open_session = open_session
        self._settings = settings
        self._emit = emit

    def confirm(self, limit: int) -> ConfirmationBatch:
        """Confirm predictions whose transaction was seen, and emit `prediction.confirmed` for each."""
        now = utc_now()
        with self._open_session() as session, session.begin():
            batch = self._lock(session, _is_seen() & _is_young(now), limit)
            rejected = _reject(session, batch)
            confirmed = confirm_seen(session, self._emit, col(Prediction.id).in_(batch), now)
            return ConfirmationBatch(confirmed=confirmed, rejected=rejected)

    def note_missing(self, limit: int) -> ConfirmationBatch:
        """Count an attempt for those that are due and not seen; after the last one a prediction is failed."""
        now = utc_now()
        with self._open_session() as session, session.begin():
            is_due = (col(Prediction.state) == "pending") & (col(Prediction.next_look_at) <= now) & ~_is_seen()
            batch = self._lock(session, is_due, limit)
            rejected = _reject(session, batch)
            states = self._postpone(session, batch, now)
            return ConfirmationBatch(rejected=rejected, failed=states.count("failed"), waiting=states.count("pending"))

    def _lock(self, session: Session, which: ColumnElement[bool], limit: int) -> list[UUID]:
        """
        Choose predictions and lock their markets, in the order of the ids.

        A resolution locks its market too, so none can classify these predictions meanwhile. The order avoids deadlock.
        """
        rows = session.execute(
            select(col(Prediction.id), col(Prediction.market_id))
            .where(which, col(Prediction.result).is_(None))
            .order_by(col(Prediction.next_look_at))
            .limit(limit)
        ).all()
        markets = {row.market_id for row in rows}
        session.execute(
            select(col(Market.id))
            .where(col(Market.id).in_(markets))
            .order_by(col(Market.id))
            .with_for_update(read=True)
        ).all()
        return [row.id for row in rows]

    def _postpone(self, session: Session, batch: Sequence[UUID], now: datetime) -> list[str]:
        """Count the look, and double the wait from look to look."""
        is_last = col(Prediction.looks) + 1 >= self._settings.market_confirm_attempts
        waits = [
            (col(Prediction.looks) == looks, now + _wait(self._settings.market_confirm_backoff, looks + 1))
            for looks in range(min(self._settings.market_confirm_attempts, 16))
        ]
        statement = (
            update(Prediction)
            .where(col(Prediction.id).in_(batch), _is_open(), col(Prediction.state) == "pending")
            .values(
                looks=col(Prediction.looks) + 1,
                state=case((is_last, "failed"), else_="pending"),
                next_look_at=case(*waits, else_=now + LONGEST_WAIT),
                last_error="its transaction was not seen on the chain",
            )
            .returning(col(Prediction.state))
            .execution_options(synchronize_session=False)
        )
        return list(session.scalars(statement))


def confirm_seen(session: Session, emit: EmitEvent, which: ColumnElement[bool], now: datetime) -> int:
    """
    Confirm those of the chosen predictions whose transaction was seen, and emit an event for each.

    The caller holds the locks of their markets. A prediction that is confirmed already does not match, so its event
    is emitted once; the key keeps that even for rows that somebody set back by hand.
    """
    ledger = (
        select(func.min(col(IndexerEvent.ledger)))
        .where(col(IndexerEvent.tx_hash) == col(Prediction.tx_hash))
        .scalar_subquery()
    )
    statement = (
        update(Prediction)
        .where(which, _is_open(), _is_seen())
        .values(state="confirmed", ledger=ledger, confirmed_at=now, last_error=None)
        .returning(Prediction)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    confirmed = session.scalars(statement).all()
    for row in confirmed:
        data = {
            "prediction_id": str(row.id),
            "market_id": row.market_id,
            "outcome": row.outcome,
            "amount": str(row.amount),
            "tx_hash": row.tx_hash,
            "ledger": row.ledger,
        }
        emit(session, CONFIRMED_EVENT, data, f"{CONFIRMED_EVENT}:{row.id}")
    return len(confirmed)


def _reject(session: Session, batch: Sequence[UUID]) -> int:
    """A prediction that is not confirmed when its market is resolved was never in the pool."""
    is_late = exists().where(col(Market.id) == col(Prediction.market_id), col(Market.state) == "resolved")
    statement = (
        update(Prediction)
        .where(col(Prediction.id).in_(batch), _is_open(), is_late)
        .values(result="rejected")
        .returning(col(Prediction.id))
        .execution_options(synchronize_session=False)
    )
    return len(session.scalars(statement).all())


def _is_open() -> ColumnElement[bool]:
    return col(Prediction.result).is_(None) & col(Prediction.state).in_(("pending", "failed"))


def _is_seen() -> ColumnElement[bool]:
    return _is_open() & exists().where(col(IndexerEvent.tx_hash) == col(Prediction.tx_hash))


def _is_young(now: datetime) -> ColumnElement[bool]:
    return (col(Prediction.state) == "pending") | (col(Prediction.created_at) > now - HEALING_TIME)


def _wait(base: timedelta, looks: int) -> timedelta:
    return min(LONGEST_WAIT, base * (1 << (looks - 1)))
