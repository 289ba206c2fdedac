"""Delete flows that ended long ago, with their steps and edges, in batches."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import delete, select
from sqlmodel import Session, col

from taskyard.flows.models import EdgeRow, FlowRow, StepRow
from taskyard.flows.states import ENDED_FLOWS

BATCH = 100  # flows of one transaction


def prune_flows(open_session: Callable[[], Session], before: datetime, *, batch: int = BATCH) -> int:
    """Delete flows that ended before a time; return how many. Safe to run twice, and to stop after any batch."""
    total = 0
    while True:
        with open_session() as session, session.begin():
            old = select(col(FlowRow.id)).where(
                col(FlowRow.state).in_(ENDED_FLOWS), col(FlowRow.finished_at) < before, col(FlowRow.check_at).is_(None)
            )
            ids = session.scalars(old.order_by(col(FlowRow.finished_at)).limit(batch).with_for_update()).all()
            for table, column in ((EdgeRow, EdgeRow.flow_id), (StepRow, StepRow.flow_id), (FlowRow, FlowRow.id)):
                session.execute(delete(table).where(col(column).in_(ids)))
        total += len(ids)
        if len(ids) < batch:
            return total
