"""`emit` with the sessions that apps really have: joined transactions, connections, async ones, foreign databases."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlmodel import Session

from taskyard.settings.loading import load_settings
from taskyard.webhooks import outbox, platform_database
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.event_types import EventTypeError
from taskyard.webhooks.models import Delivery, Event
from taskyard.webhooks.outbox import emit
from taskyard.webhooks.platform_database import WrongDatabaseError
from tests.databases import Database
from tests.webhooks.webhook_rows import WebhookRows


@pytest.fixture
def enqueued(monkeypatch: pytest.MonkeyPatch, webhook_rows: WebhookRows) -> list[object]:
    """The deliveries that were handed over."""
    found: list[object] = []

    def take(due: list[DueDelivery]) -> None:
        found.extend(row.delivery_id for row in due)

    monkeypatch.setattr(outbox, "enqueue_deliveries", take)
    monkeypatch.setattr(outbox, "current_settings", lambda: webhook_rows.settings)
    return found


@pytest.fixture
def connection(webhook_rows: WebhookRows) -> Iterator[Connection]:
    with webhook_rows.database.engine.connect() as connection:
        yield connection


def test_a_joined_outer_transaction_that_rolls_back_hands_nothing_over(
    webhook_rows: WebhookRows, enqueued: list[object], connection: Connection
) -> None:
    webhook_rows.endpoint()
    outer = connection.begin()
    with Session(bind=connection) as session:
        emit(session, "market.resolved", {})
        session.commit()
    assert enqueued == [], "nothing is committed yet"

    outer.rollback()
    with connection.begin():
        connection.execute(text("SELECT 1"))

    assert enqueued == []
    assert (webhook_rows.count(Event), webhook_rows.count(Delivery)) == (0, 0)


def test_what_a_joined_outer_transaction_commits_is_enqueued_by_the_next_sweep(
    webhook_rows: WebhookRows, enqueued: list[object], connection: Connection
) -> None:
    webhook_rows.endpoint()
    with connection.begin(), Session(bind=connection) as session:
        emit(session, "market.resolved", {})
        session.commit()

    assert enqueued == [], "a message may not come before its row is committed, and nobody says when it is"
    assert (
        [due.delivery_id for due in webhook_rows.store.waiting(10)]
        == [row.id for row in webhook_rows.deliveries()]
        != []
    )


def test_a_core_connection_is_refused_with_what_to_do(webhook_rows: WebhookRows, connection: Connection) -> None:
    with pytest.raises(TypeError, match=r"Session\(connection\)"):
        emit(connection, "market.resolved", {})  # type: ignore[arg-type]  # it is the mistake

    assert webhook_rows.count(Event) == 0


def test_an_async_session_is_refused_with_what_to_do(webhook_rows: WebhookRows) -> None:
    with pytest.raises(TypeError, match=r"await session\.run_sync\(emit"):
        emit(AsyncSession(), "market.resolved", {})  # type: ignore[arg-type]  # it is the mistake

    assert webhook_rows.count(Event) == 0


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_an_async_session_emits_by_run_sync(
    webhook_rows: WebhookRows, enqueued: list[object], database: Database
) -> None:
    webhook_rows.endpoint()

    async def scenario() -> str:
        engine = create_async_engine(database.url)
        async with AsyncSession(engine) as session, session.begin():
            event_id = await session.run_sync(emit, "market.resolved", {"n": 1})
        await engine.dispose()
        return event_id

    event_id = asyncio.run(scenario())

    (delivery,) = webhook_rows.deliveries()
    assert (delivery.event_id, enqueued) == (event_id, [delivery.id])


def test_a_session_on_another_database_is_refused_and_nothing_is_written(
    webhook_rows: WebhookRows, enqueued: list[object], tmp_path: Path
) -> None:
    other = create_engine(f"sqlite:///{tmp_path / 'other.db'}")
    with Session(other) as session, pytest.raises(WrongDatabaseError, match="DATABASE_URL"):
        emit(session, "market.resolved", {})
    other.dispose()

    assert (webhook_rows.count(Event), enqueued) == (0, [])


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_same_database_under_another_name_is_taken(
    webhook_rows: WebhookRows, enqueued: list[object], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a pooler or an alias the URL differs, and the server says the same of itself."""
    alias = database.url.replace("127.0.0.1", "localhost")
    assert alias != database.url
    aliased = load_settings({"DATABASE_URL": alias})
    monkeypatch.setattr(outbox, "current_settings", lambda: aliased)
    monkeypatch.setattr(platform_database, "current_engine", lambda: database.engine)
    webhook_rows.endpoint()

    with database.session() as session, session.begin():
        emit(session, "market.resolved", {})

    assert len(enqueued) == 1


def test_the_platforms_own_event_types_are_not_for_apps(webhook_rows: WebhookRows, enqueued: list[object]) -> None:
    with webhook_rows.database.session() as session, pytest.raises(EventTypeError, match="platform's own"):
        emit(session, "webhook.endpoint_disabled", {})

    assert (webhook_rows.count(Event), enqueued) == (0, [])
