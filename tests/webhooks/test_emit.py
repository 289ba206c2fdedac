"""`emit`: rows of the caller's own transaction, or nothing at all."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlmodel import Session
from structlog.testing import capture_logs

from taskyard.database.columns import utc_now
from taskyard.webhooks import outbox
from taskyard.webhooks.delivery.dispatch import DueDelivery
from taskyard.webhooks.event_store import EventDataError, IdempotencyConflictError
from taskyard.webhooks.event_types import EventTypeError
from taskyard.webhooks.models import Delivery, Endpoint, Event
from taskyard.webhooks.outbox import emit
from tests.webhooks.webhook_rows import WebhookRows


class Broker:
    """What was handed over; the tests in tests/system use a real one."""

    def __init__(self) -> None:
        self.batches: list[list[DueDelivery]] = []
        self.error: Exception | None = None

    def take(self, due: list[DueDelivery]) -> None:
        if self.error is not None:
            raise self.error
        self.batches.append(list(due))

    @property
    def ids(self) -> list[object]:
        return [due.delivery_id for batch in self.batches for due in batch]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch, webhook_rows: WebhookRows) -> Broker:
    """Looks at the edge between SQL and broker without a broker: what is handed over, and when."""
    edge = Broker()
    monkeypatch.setattr(outbox, "enqueue_deliveries", edge.take)
    monkeypatch.setattr(outbox, "current_settings", lambda: webhook_rows.settings)
    return edge


@pytest.fixture
def session(webhook_rows: WebhookRows) -> Iterator[Session]:
    """The app's session."""
    with webhook_rows.database.session() as session:
        yield session


def test_only_a_commit_hands_over(webhook_rows: WebhookRows, broker: Broker, session: Session) -> None:
    webhook_rows.endpoint()
    emit(session, "market.resolved", {"id": 1})
    assert broker.batches == []

    session.commit()

    assert broker.ids == [row.id for row in webhook_rows.deliveries()]
    session.commit()
    assert len(broker.batches) == 1


def test_a_rolled_back_transaction_leaves_nothing(webhook_rows: WebhookRows, broker: Broker, session: Session) -> None:
    webhook_rows.endpoint()
    emit(session, "market.resolved", {})

    session.rollback()
    session.commit()

    assert broker.batches in ([], [[]])
    assert (webhook_rows.count(Event), webhook_rows.count(Delivery)) == (0, 0)


def test_a_session_closed_without_a_commit_hands_nothing_over_with_its_next_transaction(
    webhook_rows: WebhookRows, broker: Broker, session: Session
) -> None:
    webhook_rows.endpoint()
    emit(session, "lost.one", {})
    session.close()

    emit(session, "kept.one", {})
    session.commit()

    (kept,) = webhook_rows.deliveries()
    assert kept.event_type == "kept.one"
    assert broker.ids == [kept.id]


def test_a_savepoint_that_is_released_is_not_a_commit(
    webhook_rows: WebhookRows, broker: Broker, session: Session
) -> None:
    webhook_rows.endpoint()
    with session.begin_nested(), session.begin_nested():
        emit(session, "market.resolved", {})
    assert broker.batches == []

    session.rollback()
    session.commit()

    assert broker.ids == []
    assert webhook_rows.count(Delivery) == 0


def test_a_savepoint_that_is_rolled_back_takes_only_its_own(
    webhook_rows: WebhookRows, broker: Broker, session: Session
) -> None:
    webhook_rows.endpoint()
    emit(session, "kept.before", {})
    with session.begin_nested() as savepoint:
        emit(session, "lost.one", {})
        savepoint.rollback()
    with session.begin_nested():
        emit(session, "kept.after", {})

    session.commit()

    assert sorted(row.event_type for row in webhook_rows.deliveries()) == ["kept.after", "kept.before"]
    assert sorted(map(str, broker.ids)) == sorted(str(row.id) for row in webhook_rows.deliveries())


def test_a_session_may_emit_in_one_transaction_after_another(
    webhook_rows: WebhookRows, broker: Broker, session: Session
) -> None:
    webhook_rows.endpoint()
    for count in range(3):
        emit(session, "market.resolved", {"n": count})
        session.commit()

    assert [len(batch) for batch in broker.batches] == [1, 1, 1]


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("OOM command not allowed")])
def test_a_broker_that_fails_does_not_fail_the_committed_transaction(
    webhook_rows: WebhookRows, broker: Broker, session: Session, error: Exception
) -> None:
    webhook_rows.endpoint()
    broker.error = error
    emit(session, "market.resolved", {})

    with capture_logs() as logs:
        session.commit()

    assert [(line["event"], line["deliveries"]) for line in logs] == [("webhook.enqueue_failed", 1)]
    (row,) = webhook_rows.deliveries()
    webhook_rows.change(Delivery, row.id, enqueued_at=utc_now() - timedelta(minutes=2))
    assert [due.delivery_id for due in webhook_rows.store.lost(10, timedelta(minutes=1))] == [row.id]


def test_each_endpoint_gets_one_delivery_however_many_of_its_filters_match(webhook_rows: WebhookRows) -> None:
    both = webhook_rows.endpoint(("market.resolved", "market.*", "*"))
    webhook_rows.endpoint(("market.binary.*",))
    disabled = webhook_rows.endpoint()
    webhook_rows.change(Endpoint, disabled, enabled=False)

    webhook_rows.emit("market.resolved")

    assert [row.endpoint_id for row in webhook_rows.deliveries()] == [both]


def test_an_idempotency_key_returns_the_first_event(
    webhook_rows: WebhookRows, broker: Broker, session: Session
) -> None:
    webhook_rows.endpoint()
    first = emit(session, "market.resolved", {"n": 1}, idempotency_key="order-7")
    again = emit(session, "market.resolved", {"n": 1}, idempotency_key="order-7")
    session.commit()
    later = emit(session, "market.resolved", {"n": 1}, idempotency_key="order-7")
    session.commit()

    assert first == again == later
    assert (webhook_rows.count(Event), webhook_rows.count(Delivery), len(broker.ids)) == (1, 1, 1)


@pytest.mark.parametrize(("event_type", "data"), [("market.resolved", {"n": 2}), ("market.opened", {"n": 1})])
def test_an_idempotency_key_with_other_content_is_refused(
    webhook_rows: WebhookRows, broker: Broker, session: Session, event_type: str, data: Any
) -> None:
    webhook_rows.endpoint()
    emit(session, "market.resolved", {"n": 1}, idempotency_key="order-7")
    session.commit()

    with pytest.raises(IdempotencyConflictError, match="used before"):
        emit(session, event_type, data, idempotency_key="order-7")
    session.commit()

    assert (webhook_rows.count(Event), webhook_rows.count(Delivery), len(broker.ids)) == (1, 1, 1)


def test_ten_transactions_with_one_key_at_once_make_one_event(webhook_rows: WebhookRows, broker: Broker) -> None:
    webhook_rows.endpoint()
    for round_number in range(3):
        start = Barrier(10)

        def send(_: int, start: Barrier = start, key: str = f"key-{round_number}") -> str:
            with webhook_rows.database.session() as session, session.begin():
                start.wait(20)
                return emit(session, "market.resolved", {}, idempotency_key=key)

        with ThreadPoolExecutor(10) as pool:
            ids = set(pool.map(send, range(10)))

        assert len(ids) == 1
        assert webhook_rows.count(Event) == webhook_rows.count(Delivery) == len(broker.ids) == round_number + 1


def test_a_key_of_a_rolled_back_event_is_free_again(
    webhook_rows: WebhookRows, broker: Broker, session: Session
) -> None:
    webhook_rows.endpoint()
    lost = emit(session, "market.resolved", {}, idempotency_key="k")
    session.rollback()

    kept = emit(session, "market.resolved", {}, idempotency_key="k")
    session.commit()

    assert kept != lost
    assert len(broker.ids) == 1


@dataclass
class Loop:
    """Data that has no end."""

    again: Any = None


def endless() -> Loop:
    loop = Loop()
    loop.again = loop
    return loop


def deep() -> list[Any]:
    data: list[Any] = []
    for _ in range(5000):
        data = [data]
    return data


@pytest.mark.parametrize(
    ("event_type", "data", "key", "error"),
    [
        ("", {}, None, EventTypeError),
        ("market..resolved", {}, None, EventTypeError),
        ("market.*", {}, None, EventTypeError),
        ("m\u00e4rkte", {}, None, EventTypeError),
        ("a" * 256, {}, None, EventTypeError),
        ("market.unknown", {}, None, EventTypeError),
        (None, {}, None, EventTypeError),
        ("market.resolved", {"odds": float("nan")}, None, EventDataError),
        ("market.resolved", object(), None, EventDataError),
        ("market.resolved", {"text": "\ud800"}, None, EventDataError),
        ("market.resolved", endless(), None, EventDataError),
        ("market.resolved", deep(), None, EventDataError),
        ("market.resolved", b"\xff\xfe", None, EventDataError),
        ("market.resolved", {"text": "x" * 262_144}, None, EventDataError),
        ("market.resolved", {}, "", EventDataError),
        ("market.resolved", {}, "k" * 256, EventDataError),
        ("market.resolved", {}, 7, EventDataError),
        ("market.resolved", {}, "a\x00b", EventDataError),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else None,
)
def test_a_bad_event_is_refused_with_the_documented_error_and_nothing_is_written(
    sqlite_webhook_rows: WebhookRows, event_type: str, data: Any, key: str | None, error: type[Exception]
) -> None:
    webhook_rows = sqlite_webhook_rows.tuned(WEBHOOK_EVENT_TYPES="market.resolved,market.opened")
    with pytest.raises(error):
        webhook_rows.emit(event_type, data, key)

    assert webhook_rows.count(Event) == 0
