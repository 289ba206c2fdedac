"""Sending again from the command line: the rows on both databases, and the real thing with a worker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from taskyard.webhooks.models import DeliveryAttempt
from tests.cli.webhooks_command import NO_BROKER, WebhooksCommand
from tests.databases import Database
from tests.servers import Server
from tests.webhooks.receivers import Receiver
from tests.workers import MINIMAL, Worker


@pytest.fixture
def cli(database: Database, valkey: Server, tmp_path: Path) -> WebhooksCommand:
    return WebhooksCommand(database, tmp_path, redis_url=valkey.url, more={"WEBHOOK_RETRY_DELAYS": "600"})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as started:
        yield started


@pytest.fixture
def worker(cli: WebhooksCommand) -> Iterator[Worker]:
    with Worker("tasks", cli.folder, arguments=MINIMAL, env=cli.environment) as started:
        yield started


def test_failed_deliveries_are_sent_again_by_filter(cli: WebhooksCommand) -> None:
    cli.endpoint()
    resolved, filled = cli.deliveries(3), cli.deliveries(2, "order.filled")
    cli.exhaust(*resolved[:2], *filled)
    words = ("redeliver", "--failed", "--type", "market.resolved", "--since", "1h", "--json")
    assert cli.run(*words, "--dry-run").json == {"failed": 2, "dry_run": True}
    assert cli.states(*resolved, *filled) == ["exhausted", "exhausted", "pending", "exhausted", "exhausted"]
    assert cli.process(*words, "--yes").json == {"failed": 2, "dry_run": False}
    assert cli.states(*resolved, *filled) == ["retrying", "retrying", "pending", "exhausted", "exhausted"]
    assert cli.run(*words, "--dry-run").json == {"failed": 0, "dry_run": True}


def test_an_endpoint_recovers_what_failed_and_what_it_never_got(cli: WebhooksCommand) -> None:
    first = cli.endpoint("https://example.com/first")
    failed = cli.deliveries(2)
    cli.exhaust(*failed)
    late = cli.endpoint("https://example.com/late")
    counted = cli.run("recover", str(late), "--since", "1h", "--missing", "--dry-run", "--json")
    assert counted.json == {"failed": 0, "missing": 2, "dry_run": True}
    assert cli.process("recover", str(late), "--since", "1h", "--missing", "--yes", "--json").json["missing"] == 2
    assert cli.run("recover", str(late), "--since", "1h", "--missing", "--dry-run", "--json").json["missing"] == 0
    assert cli.process("recover", str(first), "--since", "1h", "--yes", "--json").json == {
        "failed": 2,
        "dry_run": False,
    }
    assert cli.states(*failed) == ["retrying"] * 2


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_without_a_broker_the_rows_are_due_and_the_exit_code_says_partly_done(cli: WebhooksCommand) -> None:
    cli.redis_url = NO_BROKER
    endpoint = cli.endpoint()
    failed = cli.deliveries(2)
    cli.exhaust(*failed)
    ended = cli.process("recover", str(endpoint), "--since", "1h", "--yes")
    assert ended.code == 4
    assert len(ended.err.strip().splitlines()) == 1
    assert cli.states(*failed) == ["retrying"] * 2


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_enabling_without_a_broker_leaves_the_parked_ones_to_the_sweeper_and_says_so(cli: WebhooksCommand) -> None:
    cli.redis_url = NO_BROKER
    endpoint_id = cli.endpoint()
    ids = cli.deliveries(2)
    assert cli.run("endpoints", "disable", str(endpoint_id), "--yes", "--reason", "moved").code == 0
    enabled = cli.process("endpoints", "enable", str(endpoint_id))
    assert enabled.code == 4
    assert "2 parked deliveries are due" in enabled.out
    assert "the sweeper enqueues them" in enabled.err
    assert cli.states(*ids) == ["retrying"] * 2


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_nothing_is_sent_to_a_disabled_endpoint(cli: WebhooksCommand) -> None:
    endpoint = cli.endpoint()
    assert cli.run("endpoints", "disable", str(endpoint), "--yes", "--reason", "moved").code == 0
    for words in (("send-test", str(endpoint)), ("recover", str(endpoint), "--since", "1h", "--yes")):
        ended = cli.run(*words)
        assert ended.code == 1
        assert "enable it first" in ended.err


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_test_event_reaches_the_endpoint_and_its_answer_is_the_exit_code(
    cli: WebhooksCommand, receiver: Receiver, worker: Worker
) -> None:
    endpoint = cli.endpoint(receiver.url, "some.other.event")
    taken = cli.process("send-test", str(endpoint), "--json")
    assert taken.code == 0, (taken.err, worker.tail())
    assert (taken.json["attempt"], taken.json["answer"]) == (1, "HTTP 200")
    receiver.answers(500)
    refused = cli.process("send-test", str(endpoint))
    assert refused.code == 1
    assert "HTTP 500" in refused.err
    assert all(b'"type":"webhook.test"' in request.body for request in receiver.wait_for(2))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_manual_redelivery_is_exactly_one_attempt_by_the_operator(
    cli: WebhooksCommand, receiver: Receiver, worker: Worker
) -> None:
    cli.endpoint(receiver.url)
    (delivery,) = cli.deliveries(1)
    cli.exhaust(delivery)
    receiver.answers(503)
    refused = cli.process("redeliver", str(delivery))
    assert refused.code == 1, (refused.err, worker.tail())
    assert cli.states(delivery) == ["exhausted"]
    taken = cli.process("redeliver", str(delivery))
    assert taken.code == 0
    assert cli.states(delivery) == ["delivered"]
    assert len(receiver.requests) == 2
    assert len({request.webhook_id for request in receiver.requests}) == 1
    with cli.database.session() as session:
        attempt = session.get(DeliveryAttempt, (delivery, 3))
    assert attempt is not None
    assert (attempt.trigger, attempt.by) == ("manual", "operator")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_redelivery_that_no_worker_makes_is_partly_done(cli: WebhooksCommand) -> None:
    cli.endpoint()
    (delivery,) = cli.deliveries(1)
    ended = cli.process("redeliver", str(delivery), "--wait", "0.3")
    assert ended.code == 4
    assert "is a worker running?" in ended.err
