"""Claims and leases: one sender at a time, and nothing that a dead worker leaves behind stays behind."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from uuid import uuid4

import pytest
from sqlalchemy import event, update

from taskyard.database.columns import utc_now
from taskyard.webhooks.delivery.endpoints import rotate_secret
from taskyard.webhooks.delivery.store import LEASE_MARGIN, Claim, Refusal
from taskyard.webhooks.event_store import add_event
from taskyard.webhooks.models import Delivery, Endpoint
from tests.waiting import wait_for
from tests.webhooks.webhook_rows import WebhookRows, status


def test_a_claim_gives_the_stored_bytes_and_a_lease_beyond_the_deadline(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit(data={"b": 1, "a": "\u00e4"})

    claim = webhook_rows.claim(delivery)

    assert claim.body == webhook_rows.body(delivery)
    assert b'"data":{"b":1,"a":"\xc3\xa4"}' in claim.body
    lease = webhook_rows.delivery(delivery).lease_until
    assert lease is not None
    assert lease > utc_now() + webhook_rows.settings.webhook_total_timeout
    assert lease < utc_now() + webhook_rows.settings.webhook_total_timeout + LEASE_MARGIN + timedelta(seconds=1)


def test_a_leased_delivery_is_refused_until_the_lease_ends(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    webhook_rows.claim(delivery)

    assert webhook_rows.refusal(delivery) == Refusal("busy", webhook_rows.delivery(delivery).lease_until)


def test_of_twenty_claims_at_once_one_wins(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(max_concurrency=1000)
    for _ in range(5):
        (delivery,) = webhook_rows.emit()
        start = Barrier(20)

        def claim(_: int, delivery: object = delivery, start: Barrier = start) -> object:
            start.wait(10)
            return webhook_rows.store.claim(delivery)  # type: ignore[arg-type]  # bound per round

        with ThreadPoolExecutor(20) as pool:
            results = list(pool.map(claim, range(20)))

        assert [type(result) for result in results].count(Claim) == 1
        assert {result.state for result in results if isinstance(result, Refusal)} == {"busy"}


def test_an_unknown_delivery_is_refused_as_such(webhook_rows: WebhookRows) -> None:
    assert webhook_rows.refusal(uuid4()) == Refusal("unknown")


def test_a_delivery_before_its_time_is_refused_until_then(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    webhook_rows.attempt(delivery, status(500))

    refusal = webhook_rows.refusal(delivery)

    assert refusal == Refusal("retrying", webhook_rows.delivery(delivery).next_attempt_at)


@pytest.mark.parametrize("code", [200, 410])
def test_a_finished_delivery_is_not_sent_again(webhook_rows: WebhookRows, code: int) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    outcome = webhook_rows.attempt(delivery, status(code))

    assert webhook_rows.refusal(delivery) == Refusal(outcome.state)


def test_a_manual_claim_ignores_schedule_and_state_but_not_a_lease(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    webhook_rows.attempt(delivery, status(200))

    assert isinstance(webhook_rows.store.claim(delivery, manual_by="ann"), Claim)
    refusal = webhook_rows.store.claim(delivery, manual_by="bob")
    assert isinstance(refusal, Refusal)
    assert refusal.state == "busy"


def test_a_lost_worker_leaves_an_attempt_row_and_its_delivery_free(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    webhook_rows.claim(delivery)
    webhook_rows.lose_worker(delivery)

    outcome = webhook_rows.attempt(delivery, status(200))

    assert (outcome.state, outcome.attempt) == ("delivered", 2)
    assert [(row.number, row.error, row.status) for row in webhook_rows.attempts(delivery)] == [
        (1, "worker_lost", None),
        (2, None, 200),
    ]
    assert webhook_rows.delivery(delivery).failures == 0, "the receiver did not fail"


def test_a_worker_that_lost_its_lease_records_its_attempt_and_decides_nothing(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    late = webhook_rows.claim(delivery)
    webhook_rows.lose_worker(delivery)
    current = webhook_rows.claim(delivery)

    outcome = webhook_rows.record(late, status(500))

    row = webhook_rows.delivery(delivery)
    assert (outcome.state, outcome.retry_in, row.failures) == ("pending", None, 0)
    assert row.lease_token == current.token, "the current holder keeps its lease"
    assert webhook_rows.record(current, status(200)).state == "delivered"
    assert [attempt.number for attempt in webhook_rows.attempts(delivery)] == [1, 2, 3]


def test_a_worker_whose_lease_ran_out_untouched_may_still_record(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    claim = webhook_rows.claim(delivery)
    webhook_rows.lose_worker(delivery)

    assert webhook_rows.record(claim, status(200)).state == "delivered"
    assert len(webhook_rows.attempts(delivery)) == 1


def test_an_open_transaction_of_an_app_does_not_stop_the_deliveries_before_it(webhook_rows: WebhookRows) -> None:
    """On PostgreSQL its new rows hold the key of the endpoint's row until it ends; SQLite has one writer at a time."""
    if webhook_rows.database.kind == "sqlite":
        pytest.skip("one writer at a time, by design")
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    with ThreadPoolExecutor(1) as pool, webhook_rows.database.session() as app, app.begin():
        add_event(app, webhook_rows.settings, "market.resolved", {})

        sent = pool.submit(webhook_rows.attempt, delivery, status(200))

        assert sent.result(timeout=10).state == "delivered", "it waited for the app"


def test_claims_records_and_disables_in_parallel_never_wait_in_a_circle(webhook_rows: WebhookRows) -> None:
    """Each statement here takes the endpoint's row first; a deadlock would raise in one of the threads."""
    ids = [webhook_rows.endpoint(("*", "webhook.*"), max_concurrency=1000) for _ in range(2)]
    rows = [delivery for _ in range(12) for delivery in webhook_rows.emit()]

    def send(number: int) -> None:
        claim = webhook_rows.store.claim(rows[number])
        if isinstance(claim, Claim):
            webhook_rows.record(claim, status(410 if number in {5, 16} else 200))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(len(rows))))

    assert [webhook_rows.lane(endpoint).enabled for endpoint in ids].count(False) >= 1
    assert {row.state for row in webhook_rows.deliveries("market.resolved")} <= {"delivered", "parked", "exhausted"}


def test_a_delivery_that_is_deleted_while_it_is_sent_is_an_error(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint()
    (delivery,) = webhook_rows.emit()
    claim = webhook_rows.claim(delivery)
    with webhook_rows.database.session() as session, session.begin():
        session.delete(session.get(Delivery, delivery))

    with pytest.raises(LookupError, match="deleted while it was being sent"):
        webhook_rows.record(claim, status(200))


def test_reopen_gives_an_exhausted_delivery_fresh_attempts_and_leaves_others_alone(webhook_rows: WebhookRows) -> None:
    webhook_rows.endpoint(retry_delays=(timedelta(seconds=1),))
    done, spent = webhook_rows.emit_many(2)
    webhook_rows.attempt(done, status(200))
    assert webhook_rows.attempt(spent, status(500), status(500)).state == "exhausted"

    for delivery in (done, spent):
        webhook_rows.store.reopen(delivery)

    assert webhook_rows.delivery(done).state == "delivered"
    assert webhook_rows.attempt(spent, status(500)).state == "retrying"
    assert len(webhook_rows.attempts(spent)) == 3


def test_the_body_of_an_event_is_the_same_for_each_endpoint_and_attempt(webhook_rows: WebhookRows) -> None:
    for _ in range(2):
        webhook_rows.endpoint()
    first, second = webhook_rows.emit(data={"z": [1, 2], "a": None})
    webhook_rows.attempt(first, status(500))
    webhook_rows.change(Endpoint, webhook_rows.delivery(first).endpoint_id, paused_until=None)
    webhook_rows.change(Delivery, first, next_attempt_at=utc_now())

    assert webhook_rows.claim(first).body == webhook_rows.claim(second).body


def test_a_rotated_secret_signs_with_the_next_claim_and_an_expired_one_no_more(webhook_rows: WebhookRows) -> None:
    """Workers keep secrets opened; they must not keep them too long."""
    endpoint = webhook_rows.endpoint()
    rows = webhook_rows.emit_many(4)
    assert len(webhook_rows.claim(rows[0]).secrets) == 1

    with webhook_rows.database.session() as session, session.begin():
        first = rotate_secret(session, webhook_rows.settings, endpoint, timedelta(hours=1))
    assert webhook_rows.claim(rows[1]).secrets[0].reveal() == first
    assert len(webhook_rows.claim(rows[2]).secrets) == 2

    with webhook_rows.database.session() as session, session.begin():
        last = rotate_secret(session, webhook_rows.settings, endpoint, timedelta(0))
    assert [secret.reveal() for secret in webhook_rows.claim(rows[3]).secrets] == [last]


def test_a_delivery_to_a_healthy_endpoint_takes_seven_statements(webhook_rows: WebhookRows) -> None:
    """Every delivery pays for each: claim takes 3 (lock, count, lease), record 4 (lock, row, attempt, next)."""
    webhook_rows.endpoint()
    *warm, delivery = webhook_rows.emit_many(3)
    for row in warm:  # the first success changes the endpoint's row, so that its secrets are read again
        webhook_rows.record(webhook_rows.claim(row), status(200))
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(webhook_rows.database.engine, "before_cursor_execute", note)
    webhook_rows.record(webhook_rows.claim(delivery), status(200))

    assert len([statement for statement in statements if not statement.startswith("BEGIN")]) == 7


def test_claims_and_records_of_many_threads_share_their_transactions(webhook_rows: WebhookRows) -> None:
    """While one transaction waits for a lock, the next claims gather; each delivery is still claimed and sent once."""
    webhook_rows.endpoint(max_concurrency=1000)
    rows = webhook_rows.emit_many(20)
    taken: list[int] = []  # connections, one for each transaction
    event.listen(
        webhook_rows.database.engine, "checkout", lambda *_: taken.append(1)
    )  # before SQLite waits for its lock

    with ThreadPoolExecutor(20) as pool:
        with webhook_rows.database.session() as session, session.begin():
            session.execute(update(Endpoint).values(description="held"))
            first = pool.submit(webhook_rows.store.claim, rows[0])
            wait_for(lambda: len(taken) == 2, 20, "ours has begun, and the first claim's")
            others = [pool.submit(webhook_rows.store.claim, row) for row in rows[1:]]
            wait_for(lambda: webhook_rows.store._claims.pending == 19, 20, "they wait for their turn")
        claims = [claim.result(20) for claim in (first, *others)]

    assert len({claim.token for claim in claims if isinstance(claim, Claim)}) == 20
    assert len(taken) == 3, "one more, for all the others"
