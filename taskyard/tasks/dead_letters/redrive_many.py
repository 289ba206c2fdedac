"""
Resolve many dead letters in few calls to database and broker, with the same marks as :mod:`.redrive`.

If somebody else redrives or discards one of them at the same time, only one of both succeeds.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlmodel import Session, col, select, update

from taskyard.broker.transport.dedup_reports import collect_duplicates
from taskyard.database.columns import utc_now
from taskyard.history.dead_letters import claim_for_redrive, discard_dead_letter, reopen
from taskyard.history.models import BulkOperation, DeadLetter, Run
from taskyard.tasks.current_app import current_app
from taskyard.tasks.dead_letters.redrive import NotRedrivableError, RedriveOrder, redriven_run_id
from taskyard.tasks.errors import PermanentError

type Refused = list[dict[str, str]]  # id and error of each dead letter that could not be resolved


def redrive_batch(session: Session, operation: BulkOperation, dead_letters: Sequence[DeadLetter]) -> Refused:
    """
    Mark, send and confirm open dead letters; commits. Returns those that cannot run again, which stay open.

    Raises:
        kombu.exceptions.OperationalError: The broker is unreachable; :func:`send_again` sends what is marked.
    """
    orders, refused = _orders(session, dead_letters)
    claimed: dict[UUID, RedriveOrder] = {}
    for dead_letter_id, order in orders.items():
        run_id = redriven_run_id(dead_letter_id)
        by, reason = operation.who, operation.reason or ""
        mark = claim_for_redrive(session, dead_letter_id, run_id, by=by, reason=reason, operation_id=operation.id)
        if mark is not None:
            order.mark = mark
            claimed[dead_letter_id] = order
    session.commit()
    return refused + _send(session, claimed)


def send_again(session: Session, dead_letters: Sequence[DeadLetter]) -> Refused:
    """Send what a lost worker marked but did not confirm, with the same run ids; commits. At worst one runs twice."""
    orders, refused = _orders(session, dead_letters)
    for dead_letter in dead_letters:
        if dead_letter.id in orders:
            orders[dead_letter.id].mark = dead_letter.resolved_at
    return refused + _send(session, orders)


def discard_batch(session: Session, operation: BulkOperation, dead_letters: Sequence[DeadLetter]) -> Refused:
    """Discard open dead letters; commits. Never refuses any: one that somebody else resolved first is done."""
    for dead_letter in dead_letters:
        by, reason = operation.who, operation.reason or ""
        discard_dead_letter(session, dead_letter.id, by=by, reason=reason, operation_id=operation.id)
    session.commit()
    return []


def _orders(session: Session, dead_letters: Sequence[DeadLetter]) -> tuple[dict[UUID, RedriveOrder], Refused]:
    run_ids = [dead_letter.run_id for dead_letter in dead_letters]
    _loaded = session.exec(
        select(Run).where(col(Run.id).in_(run_ids))
    ).all()  # loads them into the session: an order asks for its run
    orders: dict[UUID, RedriveOrder] = {}
    refused: Refused = []
    for dead_letter in dead_letters:
        try:
            orders[dead_letter.id] = RedriveOrder(session, dead_letter, None)
        except NotRedrivableError as error:
            refused.append({"id": str(dead_letter.id), "error": str(error)})
    return orders, refused


def _send(session: Session, orders: dict[UUID, RedriveOrder]) -> Refused:
    refused: Refused = []
    sent: list[UUID] = []
    with (
        collect_duplicates(),
        current_app().producer_or_acquire() as producer,
        producer.batch(max_size=len(orders) or 1),
    ):
        for dead_letter_id, order in orders.items():
            try:
                order.send(redriven_run_id(dead_letter_id), producer=producer)
            except (LookupError, ValueError, PermanentError) as error:  # of the domain's `on_redrive`
                refused.append({"id": str(dead_letter_id), "error": f"{type(error).__name__}: {error}"})
            else:
                sent.append(dead_letter_id)
    for dead_letter_id in orders.keys() - set(sent):  # after the loop: on SQLite the domain could not write before
        mark = orders[dead_letter_id].mark
        if mark is not None:
            reopen(session, dead_letter_id, mark)
    statement = update(DeadLetter).where(col(DeadLetter.id).in_(sent)).values(redrive_sent_at=utc_now())
    session.connection().execute(statement)
    session.commit()
    return refused
