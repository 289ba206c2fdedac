"""What operators see of markets and conflicts: read only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import ColumnElement, and_, func, literal, select, tuple_
from sqlmodel import Session, col

from tasks.markets.models import (
    PREDICTION_STATES,
    RESULTS,
    VOID,
    Conflict,
    Market,
    OracleRefusal,
    Prediction,
    Resolution,
)
from taskyard.database.columns import UtcDateTime
from taskyard.database.paging import PAGE, Page, read_cursor, read_uuid, write_cursor


class MarketNotFoundError(LookupError):
    """There is no market with this id."""


class MarketView(BaseModel):
    """A market as a line of a list."""

    id: str
    title: str
    state: str
    winning_outcome: str | None
    created_at: datetime
    resolved_at: datetime | None


class MarketDetails(MarketView):
    """A market with its predictions counted and its resolution; amounts are smallest units as text."""

    outcomes: list[str]  # empty: any
    fee_bp: int
    predictions: dict[str, int]  # by state
    results: dict[str, int]  # of resolved predictions
    kind: str | None = None  # shared, void or no_winner
    pool: str | None = None
    fee: str | None = None
    paid: str | None = None
    ledger: int | None = None
    oracle_fallback: bool | None = None
    event_id: str | None = None  # of `market.resolved`
    conflicts: int  # events that named another winner, as the next those that the oracle guard has refused
    refusals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFilter:
    """Which conflicts or refusals are wanted."""

    market_id: str | None = None  # None: of all markets
    everything: bool = False  # also what somebody has decided


class ReviewView(BaseModel):
    """An event that a person must look at, and what was decided."""

    id: UUID
    market_id: str
    claimed_outcome: str
    ledger: int
    event_at: datetime | None
    times_seen: int
    first_seen_at: datetime
    last_seen_at: datetime
    decision: str | None  # one of DECISIONS; None: nobody has decided
    decided_at: datetime | None
    decided_by: str | None
    decided_why: str | None


class ConflictView(ReviewView):
    """An event that named another winner."""

    resolved_outcome: str


class RefusalView(ReviewView):
    """An event that the oracle guard has refused."""

    reason: str
    state: str  # of its market


def list_markets(
    session: Session, state: str | None = None, *, limit: int = PAGE, after: str | None = None
) -> Page[MarketView]:
    """
    Return a page of markets, the newest first; ``state`` None means all.

    Raises:
        BadCursorError: `after` does not come from an earlier page.
    """
    created_at, key = col(Market.created_at), col(Market.id)
    query = select(Market).order_by(created_at.desc(), key.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(col(Market.state) == state)
    if after is not None:
        moment, last = read_cursor(after)
        query = query.where(tuple_(created_at, key) < tuple_(literal(moment, UtcDateTime()), literal(last)))
    rows = session.scalars(query).all()
    shown = [MarketView(**row.model_dump(include=set(MarketView.model_fields))) for row in rows[:limit]]
    return Page(shown, write_cursor(shown[-1].created_at, shown[-1].id) if len(rows) > limit else None)


def show_market(session: Session, market_id: str) -> MarketDetails:
    """
    Return one market with all its counts.

    Raises:
        MarketNotFoundError: There is none.
    """
    market = session.get(Market, market_id)
    if market is None:
        raise MarketNotFoundError(f"no market {market_id!r}")
    resolution = session.get(Resolution, market_id)
    settled = {}
    if resolution is not None:
        settled = {name: str(getattr(resolution, name)) for name in ("pool", "fee", "paid")} | resolution.model_dump(
            include={"kind", "ledger", "oracle_fallback", "event_id"}
        )
    counts = _counts(session, market_id)
    return MarketDetails(
        **market.model_dump(include={*MarketView.model_fields, "outcomes", "fee_bp"}),
        predictions={state: sum(n for (s, _), n in counts.items() if s == state) for state in PREDICTION_STATES},
        results={result: n for result in RESULTS if (n := sum(n for (_, r), n in counts.items() if r == result))},
        conflicts=session.scalar(select(func.count()).where(col(Conflict.market_id) == market_id)) or 0,
        refusals=session.scalar(select(func.count()).where(col(OracleRefusal.market_id) == market_id)) or 0,
        **settled,
    )


def check_resolvable(market: MarketDetails, winning_outcome: str) -> None:
    """
    Refuse what the task would refuse, before anything is enqueued.

    Raises:
        ValueError: The market is resolved already, or has no such outcome; the text says which.
    """
    if market.state == "resolved":
        raise ValueError(f"market {market.id!r} is resolved already, as {market.winning_outcome!r}")
    if market.outcomes and winning_outcome not in (*market.outcomes, VOID):
        known = ", ".join(map(repr, (*market.outcomes, VOID)))
        raise ValueError(f"market {market.id!r} has no outcome {winning_outcome!r}; it has {known}")


def list_conflicts(
    session: Session, wanted: ReviewFilter, *, limit: int = PAGE, after: str | None = None
) -> Page[ConflictView]:
    """
    Return a page of conflicts, the newest first.

    Raises:
        BadCursorError: `after` does not come from an earlier page.
    """
    open_ones = col(Conflict.decision).is_(None)
    query = select(Conflict)
    rows, next_page = _reviews(session, query, Conflict, wanted, open_ones=open_ones, limit=limit, after=after)
    return Page([ConflictView(**row[0].model_dump()) for row in rows], next_page)


def list_refusals(
    session: Session, wanted: ReviewFilter, *, limit: int = PAGE, after: str | None = None
) -> Page[RefusalView]:
    """
    Return a page of the oracle guard's refusals, the newest first; open ones are of markets that are not resolved.

    Raises:
        BadCursorError: `after` does not come from an earlier page.
    """
    query = select(OracleRefusal, col(Market.state)).join(Market, col(Market.id) == col(OracleRefusal.market_id))
    open_ones = and_(col(OracleRefusal.decision).is_(None), col(Market.state) != "resolved")
    rows, next_page = _reviews(session, query, OracleRefusal, wanted, open_ones=open_ones, limit=limit, after=after)
    return Page([RefusalView(**row[0].model_dump(), state=row[1]) for row in rows], next_page)


def _reviews(  # noqa: PLR0913 - the parts of one query
    session: Session,
    query: Any,
    model: type[Conflict | OracleRefusal],
    wanted: ReviewFilter,
    *,
    open_ones: ColumnElement[bool],
    limit: int,
    after: str | None,
) -> tuple[Sequence[Any], str | None]:
    seen_at, key = col(model.first_seen_at), col(model.id)
    query = query.order_by(seen_at.desc(), key.desc()).limit(limit + 1)
    if wanted.market_id is not None:
        query = query.where(col(model.market_id) == wanted.market_id)
    if not wanted.everything:
        query = query.where(open_ones)
    if after is not None:
        moment, last = read_cursor(after)
        query = query.where(tuple_(seen_at, key) < tuple_(literal(moment, UtcDateTime()), literal(read_uuid(last))))
    rows = session.execute(query).all()
    shown = rows[:limit]
    return shown, write_cursor(shown[-1][0].first_seen_at, str(shown[-1][0].id)) if len(rows) > limit else None


def _counts(session: Session, market_id: str) -> dict[tuple[str, str | None], int]:
    """Count a market's predictions by state and result."""
    state, result = col(Prediction.state), col(Prediction.result)
    query = select(state, result, func.count()).where(col(Prediction.market_id) == market_id).group_by(state, result)
    return {(row[0], row[1]): row[2] for row in session.execute(query)}
