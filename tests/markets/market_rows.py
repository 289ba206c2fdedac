"""Rows of users, markets and predictions in a real database, and what became of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session
from sqlmodel import col

from config.settings import MarketSettings
from tasks.markets.confirmations import ConfirmationStore
from tasks.markets.models import IndexerEvent, Market, MarketResolution, Prediction, Predictor
from tasks.markets.payloads import PriceQuote, ResolveMarket
from tasks.markets.store import MarketStore
from taskyard.settings.platform import Settings
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.models import Delivery, Endpoint, Event, Subscription
from tests.databases import Database

EVENT_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class MarketRows:
    """Fills a database, and looks into it; settings are the defaults with the given changes."""

    def __init__(self, database: Database, **settings: Any) -> None:
        self.database = database
        self.settings = MarketSettings(**settings)
        self._users: dict[str, UUID] = {}

    def market(self, market_id: str = "m", **columns: Any) -> str:
        """Add a market."""
        with self.database.session() as session, session.begin():
            session.add(Market(id=market_id, **columns))
        return market_id

    def user(self, address: str) -> UUID:
        """Return the user of this address; made at the first call."""
        if address not in self._users:
            with self.database.session() as session, session.begin():
                user = Predictor(address=address)
                session.add(user)
            self._users[address] = user.id
        return self._users[address]

    def predict(
        self, *bets: tuple[str, int], market_id: str = "m", address: str = "alice", **columns: Any
    ) -> list[UUID]:
        """Add predictions of (outcome, amount), confirmed unless said otherwise; return their ids."""
        user_id = self.user(address)
        rows = [
            {
                "id": uuid4(),
                "market_id": market_id,
                "user_id": user_id,
                "outcome": outcome,
                "amount": amount,
                "tx_hash": uuid4().hex,
                "state": "confirmed",
                **columns,
            }
            for outcome, amount in bets
        ]
        with self.database.session() as session, session.begin():
            session.execute(insert(Prediction), rows)
        return [row["id"] for row in rows]

    def seen(self, *tx_hashes: str, ledger: int = 7) -> None:
        """Let the indexer see transactions."""
        with self.database.session() as session, session.begin():
            session.add_all(IndexerEvent(ledger=ledger, tx_hash=tx_hash, op_index=0) for tx_hash in tx_hashes)

    def subscriber(self, *patterns: str) -> UUID:
        """Add a webhook endpoint that nothing listens at."""
        with self.database.session() as session, session.begin():
            endpoint = Endpoint(url="https://subscriber.example/hook")
            session.add(endpoint)
            session.flush()
            session.add_all(Subscription(pattern=pattern, endpoint_id=endpoint.id) for pattern in patterns)
        return endpoint.id

    def markets(self) -> MarketStore:
        """The store of resolutions, whose events are rows only: no broker."""
        return MarketStore(self.database.session, self.settings, self.emit)

    def confirmations(self) -> ConfirmationStore:
        """The store of the confirmer."""
        return ConfirmationStore(self.database.session, self.settings, self.emit)

    def prediction(self, prediction_id: UUID) -> Prediction:
        """A prediction as it is now."""
        with self.database.session() as session:
            return session.get_one(Prediction, prediction_id)

    def get_market(self, market_id: str = "m") -> Market:
        """A market as it is now."""
        with self.database.session() as session:
            return session.get_one(Market, market_id)

    def resolution(self, market_id: str = "m") -> MarketResolution | None:
        """How a market was settled."""
        with self.database.session() as session:
            return session.get(MarketResolution, market_id)

    def results(self, market_id: str = "m") -> Counter[str | None]:
        """How many predictions of a market have which result."""
        with self.database.session() as session:
            query = select(col(Prediction.result), func.count()).where(col(Prediction.market_id) == market_id)
            return Counter({row[0]: row[1] for row in session.execute(query.group_by(col(Prediction.result)))})

    def paid(self, market_id: str = "m") -> int:
        """The sum of all payouts of a market; SQLite cannot sum such numbers."""
        return sum(payout or 0 for _, payout in self._payouts(market_id))

    def payouts(self, ids: Sequence[UUID], market_id: str = "m") -> list[int | None]:
        """The payouts of some predictions, in this order."""
        known = dict(self._payouts(market_id))
        return [known[each] for each in ids]

    def events(self, event_type: str) -> list[Event]:
        """The webhook events of a type."""
        with self.database.session() as session:
            return list(session.scalars(select(Event).where(col(Event.type) == event_type)))

    def deliveries(self, event_type: str) -> list[Delivery]:
        """The webhook deliveries of a type."""
        with self.database.session() as session:
            return list(session.scalars(select(Delivery).where(col(Delivery.event_type) == event_type)))

    def body(self, delivery: Delivery) -> bytes:
        """The body that a delivery sends."""
        with self.database.session() as session:
            return session.scalars(select(col(Event.body)).where(col(Event.id) == delivery.event_id)).one()

    def count(self, model: type[Any]) -> int:
        """How many rows a table has."""
        with self.database.session() as session:
            return session.scalar(select(func.count()).select_from(model)) or 0

    def emit(self, session: Session, event_type: str, data: Any, idempotency_key: str | None = None) -> str:
        """Write a webhook event, without handing it to a broker."""
        return add_event(session, Settings(), event_type, data, idempotency_key)[0]

    def _payouts(self, market_id: str) -> Iterable[tuple[UUID, int | None]]:
        with self.database.session() as session:
            query = select(col(Prediction.id), col(Prediction.payout)).where(col(Prediction.market_id) == market_id)
            return [(row[0], row[1]) for row in session.execute(query)]


def resolved_event(
    winning_outcome: str = "yes", market_id: str = "m", ledger: int = 42, quotes: tuple[PriceQuote, ...] = ()
) -> ResolveMarket:
    """The event that a market is decided."""
    return ResolveMarket(
        market_id=market_id, winning_outcome=winning_outcome, ledger=ledger, timestamp=EVENT_AT, quotes=quotes
    )
