"""The fence in the database: a leader that falls silent in the middle of a write holds nobody up."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from taskyard.beat.engine.store import BeatStore
from taskyard.beat.errors import StaleLeaderError
from taskyard.database.engine import open_engine
from tests.databases import Database

PATIENCE = timedelta(seconds=1)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_leader_that_is_suspended_in_a_write_loses_its_lock_and_the_write(database: Database) -> None:
    """Its transaction holds the row that each takeover needs; PostgreSQL ends it, though the process is only asleep."""
    engine = open_engine(database.url, 2, PATIENCE)
    heir = BeatStore(open_engine(database.url, 2, timedelta(seconds=10)))
    store = BeatStore(engine)
    store.take_over(1, "one", datetime.now(UTC))
    asleep = engine.connect()
    store.prove(asleep, 1)
    began = time.monotonic()
    heir.take_over(2, "two", datetime.now(UTC))  # while the first one says nothing
    assert PATIENCE.total_seconds() / 2 < time.monotonic() - began < 5
    with pytest.raises(DBAPIError):
        store.prove(asleep, 1)
    asleep.close()
    with pytest.raises(StaleLeaderError):
        store.record(1, 0, [], [])
    engine.dispose()


def test_a_lock_that_somebody_keeps_is_an_error_and_no_endless_wait(database: Database) -> None:
    """A person's transaction that hangs must not make the leader deaf: it says so, and gives the lead up."""
    engine = open_engine(database.url, 2, PATIENCE)
    store = BeatStore(engine)
    store.take_over(1, "one", datetime.now(UTC))
    with database.engine.begin() as hanging:
        BeatStore.prove(hanging, 1)
        began = time.monotonic()
        with pytest.raises(OperationalError):
            store.record(1, 0, [], [])
        assert time.monotonic() - began < 5
    store.record(1, 0, [], [])
    engine.dispose()
