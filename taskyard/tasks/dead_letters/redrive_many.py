"""
Resolve many dead letters in few calls to database and broker; the same marks as one by one (see :mod:`.redrive`).

Whoever else redrives or discards one of them at the same time, one of both gets it.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlmodel import Session, col, select, update

from taskyard.broker.transport.dedup_reports import collect_duplicates
from taskyard.database.columns import utc_now
from taskyard.history import dead_letters
from taskyard.history.dead_letters import claim_for_redrive, reopen
from taskyard.history.models import BulkOperation, DeadLetter, Run
from taskyard.tasks.current_app import current_app
from taskyard.tasks.dead_letters.redrive import NotRedrivableError, RedriveOrder, redriven_run_id
from taskyard.tasks.errors import PermanentError

type Refused = list[dict[str, str]]  # id and error of each letter that could not be resolved


def redrive_batch(session: Session, operation: BulkOperation, letters: Sequence[DeadLetter]) -> Refused:
    """
    Mark, send and confirm open letters; commits. Returns those that cannot run again, which stay open.

    Raises:
        kombu.exceptions.OperationalError: The broker is away; the letters are marked: :func:`send_again` sends them.
    """
    orders, refused = _orders(session, letters)
    claimed: dict[UUID, RedriveOrder] = {}
    for letter_id, order in orders.items():
        run_id = redriven_run_id(letter_id)
        by, reason = operation.who, operation.reason or ""
        mark = claim_for_redrive(session, letter_id, run_id, by=by, reason=reason, operation_id=operation.id)
        if mark is not None:
            order.mark = mark
            claimed[letter_id] = order
    session.commit()
    return refused + _send(session, claimed)


def send_again(session: Session, letters: Sequence[DeadLetter]) -> Refused:
    """Send what a lost worker had marked and not confirmed; the same run ids, so at worst one runs twice. Commits."""
    orders, refused = _orders(session, letters)
    for letter in letters:
        if letter.id in orders:
            orders[letter.id].mark = letter.resolved_at
    return refused + _send(session, orders)


def discard_batch(session: Session, operation: BulkOperation, letters: Sequence[DeadLetter]) -> Refused:
    """Close open letters; commits. Returns nothing: a letter that somebody else resolved first is resolved."""
    for letter in letters:
        by, reason = operation.who, operation.reason or ""
        dead_letters.discard_letter(session, letter.id, by=by, reason=reason, operation_id=operation.id)
    session.commit()
    return []


def _orders(session: Session, letters: Sequence[DeadLetter]) -> tuple[dict[UUID, RedriveOrder], Refused]:
    run_ids = [letter.run_id for letter in letters]
    _kept = session.exec(select(Run).where(col(Run.id).in_(run_ids))).all()  # in the session: an order asks for its run
    orders: dict[UUID, RedriveOrder] = {}
    refused: Refused = []
    for letter in letters:
        try:
            orders[letter.id] = RedriveOrder(session, letter, None)
        except NotRedrivableError as error:
            refused.append({"id": str(letter.id), "error": str(error)})
    return orders, refused


def _send(session: Session, orders: dict[UUID, RedriveOrder]) -> Refused:
    refused: Refused = []
    sent: list[UUID] = []
    with (
        collect_duplicates(),
        current_app().producer_or_acquire() as producer,
        producer.batch(max_size=len(orders) or 1),
    ):
        for letter_id, order in orders.items():
            try:
                order.send(redriven_run_id(letter_id), producer=producer)
            except (LookupError, ValueError, PermanentError) as error:  # of the domain's `on_redrive`
                refused.append({"id": str(letter_id), "error": f"{type(error).__name__}: {error}"})
            else:
                sent.append(letter_id)
    for letter_id in orders.keys() - set(sent):  # after the loop: on SQLite the domain could not write meanwhile
        mark = orders[letter_id].mark
        if mark is not None:
            reopen(session, letter_id, mark)
    statement = update(DeadLetter).where(col(DeadLetter.id).in_(sent)).values(redrive_sent_at=utc_now())
    session.connection().execute(statement)
    session.commit()
    return refused
