"""An event's way to its receivers: signed, retried, exhausted and redriven."""

from datetime import timedelta
from uuid import uuid4

from sqlmodel import Session
from standardwebhooks import Webhook

from taskyard.history.models import Run
from taskyard.webhooks.delivery.endpoints import enable, find, register, rotate_secret
from taskyard.webhooks.tasks import deliver
from tests.system.conftest import Sites
from tests.system.site import LIMIT, Site
from tests.waiting import stays_true, wait_for
from tests.webhooks.receivers import Receiver, Reply


def test_500_500_200_is_delivered_on_the_third_attempt(site: Site, receiver: Receiver) -> None:
    with site.database.session() as session, session.begin():
        _, secret = register(session, site.stage.settings, receiver.url, ["*"])
    receiver.answers(500, 500, 200)
    site.worker()

    (event_id,) = site.emit(data={"b": 1, "a": "\u00e4\u2603"})
    site.wait_for_states(delivered=1)

    requests = receiver.wait_for(3, LIMIT)
    assert len(requests) == 3
    assert {request.webhook_id for request in requests} == {event_id}
    assert len({request.body for request in requests}) == 1
    delivery = site.delivery_of(event_id)
    assert requests[0].body == site.stage.body(delivery)
    attempts = site.stage.attempts(delivery)
    assert [(row.number, row.status) for row in attempts] == [(1, 500), (2, 500), (3, 200)]
    for request, attempt in zip(requests, attempts, strict=True):
        assert request.headers["webhook-timestamp"] == str(int(attempt.started_at.timestamp())), "fresh each time"
        Webhook(secret).verify(request.body, dict(request.headers))  # an independent verifier
        assert request.headers["X-Predictify-Delivery"] == str(delivery)


def test_the_timestamp_and_signature_of_a_later_attempt_are_new(file_sites: Sites, receiver: Receiver) -> None:
    site = file_sites(WEBHOOK_RETRY_DELAYS="1.1")
    site.stage.endpoint(url=receiver.url)
    receiver.answers(500)
    site.worker()
    site.emit()

    first, second = receiver.wait_for(2, LIMIT)

    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    assert second.headers["webhook-signature"] != first.headers["webhook-signature"]


def test_always_503_is_six_attempts_and_one_dead_letter_and_ten_redrives_deliver_once(
    site: Site, receiver: Receiver
) -> None:
    site.stage.endpoint(url=receiver.url)
    receiver.decides(lambda _: 503)
    site.worker()

    (event_id,) = site.emit()
    site.wait_for_states(exhausted=1)
    (letter,) = site.wait_for_letters(1)

    assert len(receiver.requests) == 6
    assert [row.status for row in site.stage.attempts(site.delivery_of(event_id))] == [503] * 6
    assert (letter.task, letter.reason) == ("webhooks.deliver", "exhausted")

    receiver.decides(lambda _: 200)
    runs = site.redrive(letter.id, times=10)
    site.wait_for_states(delivered=1)

    assert len(set(runs)) == 1, "nine of ten operators get the run that is there"
    stays_true(lambda: len(receiver.requests) == 7, 1.5, "one request delivered it")
    assert {request.webhook_id for request in receiver.requests} == {event_id}
    assert len(site.letters()) == 1


def test_a_second_message_of_an_exhausted_delivery_makes_no_second_dead_letter(
    file_site: Site, receiver: Receiver
) -> None:
    """A sweep under a backlog hands a delivery over twice; the one that comes late finds nothing to do."""
    file_site.stage.endpoint(url=receiver.url)
    receiver.answers(410)
    file_site.worker()
    (event_id,) = file_site.emit()
    file_site.wait_for_letters(1)

    late = deliver.delay(delivery_id=file_site.delivery_of(event_id))

    with file_site.database.session() as session:
        wait_for(lambda: _state(session, late.id) == "succeeded", LIMIT, "the late message has run")
    assert len(file_site.letters()) == 1
    assert len(receiver.requests) == 1


def test_an_unknown_delivery_is_a_dead_letter_at_once(file_site: Site) -> None:
    file_site.worker()

    file_site.send_by_hand(uuid4())

    (letter,) = file_site.wait_for_letters(1)
    assert (letter.reason, letter.error_type, letter.attempt) == ("permanent", "UnknownDeliveryError", 1)


def test_410_disables_the_endpoint_and_enabling_it_sends_what_was_parked(file_site: Site, receiver: Receiver) -> None:
    endpoint = file_site.stage.endpoint(url=receiver.url, max_concurrency=1)
    receiver.answers(Reply(410, delay=0.5))
    file_site.worker()
    file_site.emit(3)
    file_site.wait_for_states(exhausted=1, parked=2)
    assert not file_site.stage.lane(endpoint).enabled
    assert len(receiver.requests) == 1

    with file_site.database.session() as session, session.begin():
        enable(session, find(session, endpoint), file_site.stage.settings)

    file_site.wait_for_states(exhausted=1, delivered=2, sweeping=True)
    assert len(receiver.requests) == 3


def test_a_receiver_that_asks_for_a_pause_is_left_alone_until_it_is_over(file_sites: Sites, receiver: Receiver) -> None:
    site = file_sites(WEBHOOK_RETRY_DELAYS="0.1,0.1,0.1")
    site.stage.endpoint(url=receiver.url, max_concurrency=1)
    receiver.answers(Reply(429, headers={"Retry-After": "3"}))
    site.worker()

    site.emit(5)
    site.wait_for_states(delivered=5, sweeping=True)

    first, *others = receiver.requests
    assert len(others) == 5
    assert all(request.monotonic_at - first.monotonic_at >= 2.9 for request in others)


def test_both_secrets_sign_while_they_overlap_and_one_after(file_site: Site, receiver: Receiver) -> None:
    with file_site.database.session() as session, session.begin():
        endpoint, old = register(session, file_site.stage.settings, receiver.url, ["*"])
    with file_site.database.session() as session, session.begin():
        new = rotate_secret(session, file_site.stage.settings, endpoint.id, timedelta(hours=1))
    file_site.worker()
    file_site.emit()
    (both,) = receiver.wait_for(1, LIMIT)

    assert len(both.headers["webhook-signature"].split()) == 2
    for secret in (old, new):
        Webhook(secret).verify(both.body, dict(both.headers))

    with file_site.database.session() as session, session.begin():
        newest = rotate_secret(session, file_site.stage.settings, endpoint.id, timedelta(0))
    file_site.emit()
    one = receiver.wait_for(2, LIMIT)[1]

    assert len(one.headers["webhook-signature"].split()) == 1
    Webhook(newest).verify(one.body, dict(one.headers))


def test_only_committed_events_are_sent(file_site: Site, receiver: Receiver) -> None:
    file_site.stage.endpoint(url=receiver.url)
    file_site.worker()

    file_site.emit_together(3, "lost.one", rolls_back=True)
    file_site.emit_together(2, "kept.one")

    file_site.wait_for_states(delivered=2)
    assert len(receiver.wait_for(2, LIMIT)) == 2
    assert all(b'"kept.one"' in request.body for request in receiver.requests)


def test_a_redirect_is_not_followed(file_site: Site, receiver: Receiver) -> None:
    file_site.stage.endpoint(url=receiver.url)
    with Receiver() as elsewhere:
        receiver.answers(Reply(302, headers={"Location": elsewhere.url}), 200)
        file_site.worker()
        file_site.emit()
        file_site.wait_for_states(delivered=1)

        assert elsewhere.requests == ()


def test_an_attempt_by_hand_is_one_attempt(file_site: Site, receiver: Receiver) -> None:
    file_site.stage.endpoint(url=receiver.url)
    file_site.worker()
    (event_id,) = file_site.emit()
    file_site.wait_for_states(delivered=1)
    receiver.decides(lambda _: 500)

    file_site.send_by_hand(file_site.delivery_of(event_id))
    receiver.wait_for(2, LIMIT)

    stays_true(lambda: len(receiver.requests) == 2, 1, "there is no chain of retries")
    assert [row.trigger for row in file_site.stage.attempts(file_site.delivery_of(event_id))] == ["schedule", "manual"]
    assert file_site.letters() == []


def _state(session: Session, run_id: str) -> str | None:
    session.rollback()  # a new look
    run = session.get(Run, run_id)
    return None if run is None else run.state
