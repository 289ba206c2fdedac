"""An event's way to its receivers: signed, retried, exhausted and redriven."""

from datetime import timedelta
from uuid import uuid4

from sqlmodel import Session
from standardwebhooks import Webhook

from taskyard.history.models import Run
from taskyard.webhooks.delivery.endpoints import enable, find, register, rotate_secret
from taskyard.webhooks.tasks import deliver
from tests.system.conftest import PlatformMaker
from tests.system.webhook_platform import LIMIT, WebhookPlatform
from tests.waiting import stays_true, wait_for
from tests.webhooks.receivers import Receiver, Reply


def test_500_500_200_is_delivered_on_the_third_attempt(platform: WebhookPlatform, receiver: Receiver) -> None:
    with platform.database.session() as session, session.begin():
        _, secret = register(session, platform.webhook_rows.settings, receiver.url, ["*"])
    receiver.answers(500, 500, 200)
    platform.worker()

    (event_id,) = platform.emit(data={"b": 1, "a": "\u00e4\u2603"})
    platform.wait_for_states(delivered=1)

    requests = receiver.wait_for(3, LIMIT)
    assert len(requests) == 3
    assert {request.webhook_id for request in requests} == {event_id}
    assert len({request.body for request in requests}) == 1
    delivery = platform.delivery_of(event_id)
    assert requests[0].body == platform.webhook_rows.body(delivery)
    attempts = platform.webhook_rows.attempts(delivery)
    assert [(row.number, row.status) for row in attempts] == [(1, 500), (2, 500), (3, 200)]
    for request, attempt in zip(requests, attempts, strict=True):
        assert request.headers["webhook-timestamp"] == str(int(attempt.started_at.timestamp())), "fresh each time"
        Webhook(secret).verify(request.body, dict(request.headers))  # an independent verifier
        assert request.headers["X-Predictify-Delivery"] == str(delivery)


def test_the_timestamp_and_signature_of_a_later_attempt_are_new(
    make_sqlite_platform: PlatformMaker, receiver: Receiver
) -> None:
    platform = make_sqlite_platform(WEBHOOK_RETRY_DELAYS="1.1")
    platform.webhook_rows.endpoint(url=receiver.url)
    receiver.answers(500)
    platform.worker()
    platform.emit()

    first, second = receiver.wait_for(2, LIMIT)

    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    assert second.headers["webhook-signature"] != first.headers["webhook-signature"]


def test_always_503_is_six_attempts_and_one_dead_letter_and_ten_redrives_deliver_once(
    platform: WebhookPlatform, receiver: Receiver
) -> None:
    platform.webhook_rows.endpoint(url=receiver.url)
    receiver.decides(lambda _: 503)
    platform.worker()

    (event_id,) = platform.emit()
    platform.wait_for_states(exhausted=1)
    (letter,) = platform.wait_for_dead_letters(1)

    assert len(receiver.requests) == 6
    assert [row.status for row in platform.webhook_rows.attempts(platform.delivery_of(event_id))] == [503] * 6
    assert (letter.task, letter.reason) == ("webhooks.deliver", "exhausted")

    receiver.decides(lambda _: 200)
    runs = platform.redrive(letter.id, times=10)
    platform.wait_for_states(delivered=1)

    assert len(set(runs)) == 1, "nine of ten operators get the run that is there"
    stays_true(lambda: len(receiver.requests) == 7, 1.5, "one request delivered it")
    assert {request.webhook_id for request in receiver.requests} == {event_id}
    assert len(platform.dead_letters()) == 1


def test_a_second_message_of_an_exhausted_delivery_makes_no_second_dead_letter(
    sqlite_platform: WebhookPlatform, receiver: Receiver
) -> None:
    """A sweep under a backlog hands a delivery over twice; the one that comes late finds nothing to do."""
    sqlite_platform.webhook_rows.endpoint(url=receiver.url)
    receiver.answers(410)
    sqlite_platform.worker()
    (event_id,) = sqlite_platform.emit()
    sqlite_platform.wait_for_dead_letters(1)

    late = deliver.delay(delivery_id=sqlite_platform.delivery_of(event_id))

    with sqlite_platform.database.session() as session:
        wait_for(lambda: _state(session, late.id) == "cancelled", LIMIT, "the late message has run")
    assert len(sqlite_platform.dead_letters()) == 1
    assert len(receiver.requests) == 1


def test_an_unknown_delivery_is_a_dead_letter_at_once(sqlite_platform: WebhookPlatform) -> None:
    sqlite_platform.worker()

    sqlite_platform.send_by_hand(uuid4())

    (letter,) = sqlite_platform.wait_for_dead_letters(1)
    assert (letter.reason, letter.error_type, letter.attempt) == ("permanent", "UnknownDeliveryError", 1)


def test_410_disables_the_endpoint_and_enabling_it_sends_what_was_parked(
    sqlite_platform: WebhookPlatform, receiver: Receiver
) -> None:
    endpoint = sqlite_platform.webhook_rows.endpoint(url=receiver.url, max_concurrency=1)
    receiver.answers(Reply(410, delay=0.5))
    sqlite_platform.worker()
    sqlite_platform.emit(3)
    sqlite_platform.wait_for_states(exhausted=1, parked=2)
    assert not sqlite_platform.webhook_rows.lane(endpoint).enabled
    assert len(receiver.requests) == 1

    with sqlite_platform.database.session() as session, session.begin():
        enable(session, find(session, endpoint), sqlite_platform.webhook_rows.settings)

    sqlite_platform.wait_for_states(exhausted=1, delivered=2, sweeping=True)
    assert len(receiver.requests) == 3


def test_a_receiver_that_asks_for_a_pause_is_left_alone_until_it_is_over(
    make_sqlite_platform: PlatformMaker, receiver: Receiver
) -> None:
    platform = make_sqlite_platform(WEBHOOK_RETRY_DELAYS="0.1,0.1,0.1")
    platform.webhook_rows.endpoint(url=receiver.url, max_concurrency=1)
    receiver.answers(Reply(429, headers={"Retry-After": "3"}))
    platform.worker()

    platform.emit(5)
    platform.wait_for_states(delivered=5, sweeping=True)

    first, *others = receiver.requests
    assert len(others) == 5
    assert all(request.monotonic_at - first.monotonic_at >= 2.9 for request in others)


def test_both_secrets_sign_while_they_overlap_and_one_after(
    sqlite_platform: WebhookPlatform, receiver: Receiver
) -> None:
    with sqlite_platform.database.session() as session, session.begin():
        endpoint, old = register(session, sqlite_platform.webhook_rows.settings, receiver.url, ["*"])
    with sqlite_platform.database.session() as session, session.begin():
        new = rotate_secret(session, sqlite_platform.webhook_rows.settings, endpoint.id, timedelta(hours=1))
    sqlite_platform.worker()
    sqlite_platform.emit()
    (both,) = receiver.wait_for(1, LIMIT)

    assert len(both.headers["webhook-signature"].split()) == 2
    for secret in (old, new):
        Webhook(secret).verify(both.body, dict(both.headers))

    with sqlite_platform.database.session() as session, session.begin():
        newest = rotate_secret(session, sqlite_platform.webhook_rows.settings, endpoint.id, timedelta(0))
    sqlite_platform.emit()
    one = receiver.wait_for(2, LIMIT)[1]

    assert len(one.headers["webhook-signature"].split()) == 1
    Webhook(newest).verify(one.body, dict(one.headers))


def test_only_committed_events_are_sent(sqlite_platform: WebhookPlatform, receiver: Receiver) -> None:
    sqlite_platform.webhook_rows.endpoint(url=receiver.url)
    sqlite_platform.worker()

    sqlite_platform.emit_together(3, "lost.one", rolls_back=True)
    sqlite_platform.emit_together(2, "kept.one")

    sqlite_platform.wait_for_states(delivered=2)
    assert len(receiver.wait_for(2, LIMIT)) == 2
    assert all(b'"kept.one"' in request.body for request in receiver.requests)


def test_a_redirect_is_not_followed(sqlite_platform: WebhookPlatform, receiver: Receiver) -> None:
    sqlite_platform.webhook_rows.endpoint(url=receiver.url)
    with Receiver() as elsewhere:
        receiver.answers(Reply(302, headers={"Location": elsewhere.url}), 200)
        sqlite_platform.worker()
        sqlite_platform.emit()
        sqlite_platform.wait_for_states(delivered=1)

        assert elsewhere.requests == ()


def test_an_attempt_by_hand_is_one_attempt(sqlite_platform: WebhookPlatform, receiver: Receiver) -> None:
    sqlite_platform.webhook_rows.endpoint(url=receiver.url)
    sqlite_platform.worker()
    (event_id,) = sqlite_platform.emit()
    sqlite_platform.wait_for_states(delivered=1)
    receiver.decides(lambda _: 500)

    sqlite_platform.send_by_hand(sqlite_platform.delivery_of(event_id))
    receiver.wait_for(2, LIMIT)

    stays_true(lambda: len(receiver.requests) == 2, 1, "there is no chain of retries")
    assert [row.trigger for row in sqlite_platform.webhook_rows.attempts(sqlite_platform.delivery_of(event_id))] == [
        "schedule",
        "manual",
    ]
    assert sqlite_platform.dead_letters() == []


def _state(session: Session, run_id: str) -> str | None:
    session.rollback()  # a new look
    run = session.get(Run, run_id)
    return None if run is None else run.state
