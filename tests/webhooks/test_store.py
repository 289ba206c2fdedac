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
from tests.webhooks.stage import Stage, status


def test_a_claim_gives_the_stored_bytes_and_a_lease_beyond_the_deadline(stage: Stage) -> None:
    stage.endpoint()
    (delivery,) = stage.emit(data={"b": 1, "a": "\u00e4"})

    claim = stage.claim(delivery)

    assert claim.body == stage.body(delivery)
    assert b'"data":{"b":1,"a":"\xc3\xa4"}' in claim.body
    lease = stage.delivery(delivery).lease_until
    assert lease is not None
    assert lease > utc_now() + stage.settings.webhook_total_timeout
    assert lease < utc_now() + stage.settings.webhook_total_timeout + LEASE_MARGIN + timedelta(seconds=1)


def test_a_leased_delivery_is_refused_until_the_lease_ends(stage: Stage) -> None:
    stage.endpoint()
    (delivery,) = stage.emit()
    stage.claim(delivery)

    assert stage.refusal(delivery) == Refusal("busy", stage.delivery(delivery).lease_until)


def test_of_twenty_claims_at_once_one_wins(stage: Stage) -> None:
    stage.endpoint(max_concurrency=1000)
    for _ in range(5):
        (delivery,) = stage.emit()
        start = Barrier(20)

        def claim(_: int, delivery: object = delivery, start: Barrier = start) -> object:
            start.wait(10)
            return stage.store.claim(delivery)  # type: ignore[arg-type]  # bound per round

        with ThreadPoolExecutor(20) as pool:
            results = list(pool.map(claim, range(20)))

        assert [type(result) for result in results].count(Claim) == 1
        assert {result.state for result in results if isinstance(result, Refusal)} == {"busy"}


def test_an_unknown_delivery_is_refused_as_such(stage: Stage) -> None:
    assert stage.refusal(uuid4()) == Refusal("unknown")


def test_a_delivery_before_its_time_is_refused_until_then(stage: Stage) -> None:
    stage.endpoint()
    (delivery,) = stage.emit()
    stage.attempt(delivery, status(500))

    refusal = stage.refusal(delivery)

    assert refusal == Refusal("retrying", stage.delivery(delivery).next_attempt_at)


@pytest.mark.parametrize("code", [200, 410])
def test_a_finished_delivery_is_not_sent_again(stage: Stage, code: int) -> None:
    stage.endpoint()
    (delivery,) = stage.emit()
    outcome = stage.attempt(delivery, status(code))

    assert stage.refusal(delivery) == Refusal(outcome.state)


def test_a_manual_claim_ignores_schedule_and_state_but_not_a_lease(stage: Stage) -> None:
    stage.endpoint()
    (delivery,) = stage.emit()
    stage.attempt(delivery, status(200))

    assert isinstance(stage.store.claim(delivery, manual_by="ann"), Claim)
    refusal = stage.store.claim(delivery, manual_by="bob")
    assert isinstance(refusal, Refusal)
    assert refusal.state == "busy"


def test_a_lost_worker_leaves_an_attempt_row_and_its_delivery_free(stage: Stage) -> None:
    stage.endpoint()
    (delivery,) = stage.emit()
    stage.claim(delivery)
    stage.lose_worker(delivery)

    outcome = stage.attempt(delivery, status(200))

    assert (outcome.state, outcome.attempt) == ("delivered", 2)
    assert [(row.number, row.error, row.status) for row in stage.attempts(delivery)] == [
        (1, "worker_lost", None),
        (2, None, 200),
    ]
    assert stage.delivery(delivery).failures == 0, "the receiver did not fail"


def test_a_worker_that_lost_its_lease_records_its_attempt_and_decides_nothing(stage: Stage) -> None:
    stage.endpoint()
    (delivery,) = stage.emit()
    late = stage.claim(delivery)
    stage.lose_worker(delivery)
    current = stage.claim(delivery)

    outcome = stage.record(late, status(500))

    row = stage.delivery(delivery)
    assert (outcome.state, outcome.retry_in, row.failures) == ("pending", None, 0)
    assert row.lease_token == current.token, "the current holder keeps its lease"
    assert stage.record(current, status(200)).state == "delivered"
    assert [attempt.number for attempt in stage.attempts(delivery)] == [1, 2, 3]


def test_a_worker_whose_lease_ran_out_untouched_may_still_record(stage: Stage) -> None:
    stage.endpoint()
    (delivery,) = stage.emit()
    claim = stage.claim(delivery)
    stage.lose_worker(delivery)

    assert stage.record(claim, status(200)).state == "delivered"
    assert len(stage.attempts(delivery)) == 1


def test_an_open_transaction_of_an_app_does_not_stop_the_deliveries_before_it(stage: Stage) -> None:
    """On PostgreSQL its new rows hold the key of the endpoint's row until it ends; SQLite has one writer at a time."""
    if stage.database.kind == "sqlite":
        pytest.skip("one writer at a time, by design")
    stage.endpoint()
    (delivery,) = stage.emit()
    with ThreadPoolExecutor(1) as pool, stage.database.session() as app, app.begin():
        add_event(app, stage.settings, "market.resolved", {})

        sent = pool.submit(stage.attempt, delivery, status(200))

        assert sent.result(timeout=10).state == "delivered", "it waited for the app"


def test_claims_records_and_disables_in_parallel_never_wait_in_a_circle(stage: Stage) -> None:
    """Each statement here takes the endpoint's row first; a deadlock would raise in one of the threads."""
    ids = [stage.endpoint(("*", "webhook.*"), max_concurrency=1000) for _ in range(2)]
    rows = [delivery for _ in range(12) for delivery in stage.emit()]

    def send(number: int) -> None:
        claim = stage.store.claim(rows[number])
        if isinstance(claim, Claim):
            stage.record(claim, status(410 if number in {5, 16} else 200))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(len(rows))))

    assert [stage.lane(endpoint).enabled for endpoint in ids].count(False) >= 1
    assert {row.state for row in stage.deliveries("market.resolved")} <= {"delivered", "parked", "exhausted"}


def test_a_delivery_that_is_deleted_while_it_is_sent_is_an_error(stage: Stage) -> None:
    stage.endpoint()
    (delivery,) = stage.emit()
    claim = stage.claim(delivery)
    with stage.database.session() as session, session.begin():
        session.delete(session.get(Delivery, delivery))

    with pytest.raises(LookupError, match="deleted while it was being sent"):
        stage.record(claim, status(200))


def test_reopen_gives_an_exhausted_delivery_fresh_attempts_and_leaves_others_alone(stage: Stage) -> None:
    stage.endpoint(retry_delays=(timedelta(seconds=1),))
    done, spent = stage.emit_many(2)
    stage.attempt(done, status(200))
    assert stage.attempt(spent, status(500), status(500)).state == "exhausted"

    for delivery in (done, spent):
        stage.store.reopen(delivery)

    assert stage.delivery(done).state == "delivered"
    assert stage.attempt(spent, status(500)).state == "retrying"
    assert len(stage.attempts(spent)) == 3


def test_the_body_of_an_event_is_the_same_for_each_endpoint_and_attempt(stage: Stage) -> None:
    for _ in range(2):
        stage.endpoint()
    first, second = stage.emit(data={"z": [1, 2], "a": None})
    stage.attempt(first, status(500))
    stage.change(Endpoint, stage.delivery(first).endpoint_id, paused_until=None)
    stage.change(Delivery, first, next_attempt_at=utc_now())

    assert stage.claim(first).body == stage.claim(second).body


def test_a_rotated_secret_signs_with_the_next_claim_and_an_expired_one_no_more(stage: Stage) -> None:
    """Workers keep secrets opened; they must not keep them too long."""
    endpoint = stage.endpoint()
    rows = stage.emit_many(4)
    assert len(stage.claim(rows[0]).secrets) == 1

    with stage.database.session() as session, session.begin():
        first = rotate_secret(session, stage.settings, endpoint, timedelta(hours=1))
    assert stage.claim(rows[1]).secrets[0].reveal() == first
    assert len(stage.claim(rows[2]).secrets) == 2

    with stage.database.session() as session, session.begin():
        last = rotate_secret(session, stage.settings, endpoint, timedelta(0))
    assert [secret.reveal() for secret in stage.claim(rows[3]).secrets] == [last]


def test_a_delivery_to_a_healthy_endpoint_takes_seven_statements(stage: Stage) -> None:
    """Every delivery pays for each: claim takes 3 (lock, count, lease), record 4 (lock, row, attempt, next)."""
    stage.endpoint()
    *warm, delivery = stage.emit_many(3)
    for row in warm:  # the first success changes the endpoint's row, so that its secrets are read again
        stage.record(stage.claim(row), status(200))
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(stage.database.engine, "before_cursor_execute", note)
    stage.record(stage.claim(delivery), status(200))

    assert len([statement for statement in statements if not statement.startswith("BEGIN")]) == 7


def test_claims_and_records_of_many_threads_share_their_transactions(stage: Stage) -> None:
    """While one transaction waits for a lock, the next claims gather; each delivery is still claimed and sent once."""
    stage.endpoint(max_concurrency=1000)
    rows = stage.emit_many(20)
    taken: list[int] = []  # connections, one for each transaction
    event.listen(stage.database.engine, "checkout", lambda *_: taken.append(1))  # before SQLite waits for its lock

    with ThreadPoolExecutor(20) as pool:
        with stage.database.session() as session, session.begin():
            session.execute(update(Endpoint).values(description="held"))
            first = pool.submit(stage.store.claim, rows[0])
            wait_for(lambda: len(taken) == 2, 20, "ours has begun, and the first claim's")
            others = [pool.submit(stage.store.claim, row) for row in rows[1:]]
            wait_for(lambda: stage.store._claims.pending == 19, 20, "they wait for their turn")
        claims = [claim.result(20) for claim in (first, *others)]

    assert len({claim.token for claim in claims if isinstance(claim, Claim)}) == 20
    assert len(taken) == 3, "one more, for all the others"
