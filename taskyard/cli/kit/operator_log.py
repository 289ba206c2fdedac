"""Commands that change something outside SQL, each with its row in the operator log."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from sqlalchemy.exc import DBAPIError

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.broker.server.client import shared_client
from taskyard.cli.kit.exit_codes import PartlyDoneError, line_of
from taskyard.database.engine import open_session
from taskyard.history.operator_log import Operation, record_operation
from taskyard.settings.loading import current_settings

LONGEST_TARGET = 255  # characters of a name or id, as the operator log keeps it


def queue_control() -> QueueControl:
    """Return the control of the queues on the platform's broker."""
    settings = current_settings()
    return QueueControl(shared_client(settings.redis_url), settings.taskyard_key_prefix)


@contextmanager
def logged(
    verb: str, target: str, *, reason: str = "", facts: Any = None, is_urgent: bool = False
) -> Iterator[Operation]:
    """
    Do what the block does, between opening and committing its row: an error in the block leaves no row.

    The row is written first, so that nothing is changed when it cannot be kept; but for what is urgent, since an outage
    of the database is a reason to pause a queue.

    Raises:
        PartlyDoneError: It was urgent and is done, and the row could not be kept.
    """
    _check_target(target)
    with open_session() as session:
        row = record_operation(session, verb, target, reason=reason, facts=facts)
        try:
            session.flush()
        except DBAPIError as error:
            if not is_urgent:
                raise
            session.rollback()
            yield row
            raise PartlyDoneError(f"{verb} {target}: done, but not in the operator log: {line_of(error)}") from error
        yield row
        session.commit()


@contextmanager
def announced(verb: str, target: str = "", *, reason: str = "", facts: Any = None) -> Iterator[Operation]:
    """
    Do what the block does after its row was committed; for work in many transactions of its own.

    The row says that it was begun; `count`, set by the block, is kept however the block ends.
    """
    _check_target(target)
    with open_session() as session:
        row = record_operation(session, verb, target, reason=reason, facts=facts, count=0)
        session.commit()
        try:
            yield row
        finally:
            session.commit()


def _check_target(target: str) -> None:
    if len(target) > LONGEST_TARGET:
        raise click.UsageError(
            f"nothing was done: {target[:40]!r}... has {len(target)} characters and names nothing here"
        )
