"""Write the result and the payout of every prediction of a market in few statements."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Uuid, bindparam, column, func, update
from sqlalchemy.orm import Session
from sqlmodel import col

from tasks.markets.models import Prediction
from tasks.markets.payouts import Settlement
from taskyard.database.amounts import Amount

BATCH = 50_000  # winners in one statement


@dataclass(frozen=True, slots=True)
class ResultCounts:
    """Number of predictions of a market by result."""

    won: int
    lost: int
    refunded: int
    rejected: int


def classify(session: Session, market_id: str, settlement: Settlement) -> ResultCounts:
    """
    Give each prediction of the market its result; the caller holds the market's lock.

    Only winners differ from each other, so only they are written one by one; the rest are three statements at most.
    """
    unclassified = (col(Prediction.market_id) == market_id) & col(Prediction.result).is_(None)
    confirmed = unclassified & (col(Prediction.state) == "confirmed")
    rejected = _write(session, unclassified & (col(Prediction.state) != "confirmed"), result="rejected")
    if settlement.kind != "shared":
        refunded = _write(session, confirmed, result="refunded", payout=col(Prediction.amount))
        return ResultCounts(won=0, lost=0, refunded=refunded, rejected=rejected)
    _write_winners(session, list(settlement.payouts.items()))
    lost = _write(session, confirmed, result="lost", payout=0)
    return ResultCounts(won=len(settlement.payouts), lost=lost, refunded=0, rejected=rejected)


def _write(session: Session, which: ColumnElement[bool], **values: Any) -> int:
    return _changed(
        session.execute(update(Prediction).where(which).values(**values).execution_options(synchronize_session=False))
    )


def _write_winners(session: Session, payouts: Sequence[tuple[UUID, int]]) -> None:
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    for batch in batched(payouts, BATCH, strict=False):
        if is_postgresql:
            _write_array(session, batch)
        else:
            _write_each(session, batch)


def _write_array(session: Session, batch: Sequence[tuple[UUID, int]]) -> None:
    """PostgreSQL: two arrays in one statement; a statement per row would take a round trip each."""
    rows = (
        func.unnest(
            bindparam("ids", [row[0] for row in batch], ARRAY(Uuid())),
            bindparam("payouts", [row[1] for row in batch], ARRAY(Amount())),
        )
        .table_valued(column("id", Uuid()), column("payout", Amount()), name="winner")
        .render_derived()
    )
    statement = update(Prediction).where(col(Prediction.id) == rows.c.id).values(result="won", payout=rows.c.payout)
    session.execute(statement.execution_options(synchronize_session=False))


def _write_each(session: Session, batch: Sequence[tuple[UUID, int]]) -> None:
    """SQLite: no round trips, so one prepared statement for all."""
    table: Any = Prediction.__table__  # type: ignore[attr-defined]  # SQLModel does not declare it
    statement = update(table).where(table.c.id == bindparam("winner")).values(result="won", payout=bindparam("paid"))
    session.connection().execute(statement, [{"winner": row[0], "paid": row[1]} for row in batch])


def _changed(result: Any) -> int:
    return int(result.rowcount)
