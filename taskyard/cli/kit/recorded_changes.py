"""Changes outside SQL, each recorded in the operator log."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.broker.server.client import shared_client
from taskyard.broker.server.ownership import check_owner, owner_of
from taskyard.cli.kit.exit_codes import PartlyDoneError, error_line
from taskyard.database.engine import open_session
from taskyard.history.operator_log import Operation, record_operation
from taskyard.settings.loading import current_settings

LONGEST_TARGET = 255  # characters of a name or id, as the operator log keeps it


def queue_control() -> QueueControl:
    """
    Return the queue control of the configured broker.

    Raises:
        OtherPlatformError: The broker is another platform's.
    """
    settings = current_settings()
    client = shared_client(settings.redis_url)
    check_owner(settings.taskyard_key_prefix, owner_of(client, settings.taskyard_key_prefix))
    return QueueControl(client, settings.taskyard_key_prefix)


@contextmanager
def logged_change(
    verb: str, target: str, *, reason: str = "", facts: Any = None, is_urgent: bool = False
) -> Iterator[Operation]:
    """
    Run the block between inserting and committing its row; an error in the block leaves no row.

    The row is inserted first, so that nothing changes when it cannot be stored. Urgent changes are made anyway: a
    database outage is a reason to pause a queue.

    Raises:
        PartlyDoneError: The urgent change was made, but its row could not be stored.
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
            raise PartlyDoneError(
                f"{verb} {target}: done, but not recorded in the operator log: {error_line(error)}"
            ) from error
        yield row
        session.commit()


@contextmanager
def recorded_transaction(verb: str, target: str = "", *, reason: str = "", facts: Any = None) -> Iterator[Session]:
    """Run the block in a transaction that also holds its row of the operator log: both are committed, or neither."""
    _check_target(target)
    with open_session() as session:
        record_operation(session, verb, target, reason=reason, facts=facts)
        yield session
        session.commit()


@contextmanager
def logged_bulk_change(verb: str, target: str = "", *, reason: str = "", facts: Any = None) -> Iterator[Operation]:
    """
    Run the block after its row was committed; for work in many transactions.

    The row records the start; `count`, set by the block, is stored however the block ends.
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
            f"nothing was done: {target[:40]!r}... has {len(target)} characters: too long for a name or id"
        )
