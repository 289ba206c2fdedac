"""Flows of the release before this one find their events."""

from uuid import uuid4

from alembic import command
from sqlalchemy import text

from tasks.app import DOMAINS
from taskyard.migrations.owners import table_owners
from taskyard.migrations.schema import configuration, upgrade
from tests.databases import Database

STEP = """
INSERT INTO taskyard_flow_steps
    (flow_id, seq, name, role, kind, options, state, generation, waits_for, if_failed, is_cleanup, is_counted, attempts,
     polls)
VALUES (:flow, :seq, :name, 'step', :kind, :options, 'waiting', 1, 0, 'fail', false, false, 0, 0)
"""


def test_steps_of_before_are_found_by_their_event(empty_database: Database) -> None:
    owner = next(owner for owner in table_owners(DOMAINS) if owner.name == "taskyard")
    rows = [
        {"flow": uuid4().hex, "seq": 0, "name": "paid", "kind": "event", "options": '{"event": "payment.received:7"}'},
        {"flow": uuid4().hex, "seq": 1, "name": "task", "kind": "task", "options": '{"queue": "celery"}'},
    ]
    with empty_database.engine.begin() as connection:
        command.upgrade(configuration(owner, connection), "0001")
        connection.execute(text(STEP), rows)

    upgrade(empty_database.engine, [owner])

    with empty_database.engine.connect() as connection:
        found = connection.execute(text("SELECT name, event FROM taskyard_flow_steps ORDER BY seq")).all()
    assert [tuple(row) for row in found] == [("paid", "payment.received:7"), ("task", None)]
