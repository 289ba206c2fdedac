"""A queue, exchange or publication asks for what is supported, or is refused in one line; nothing is ignored."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest

from taskyard.broker.transport.declarations import UnsupportedArgumentError
from tests.broker.harness import BrokerHarness
from tests.workers import ROOT


@pytest.fixture
def channel(valkey_harness: BrokerHarness) -> Iterator[Any]:
    with valkey_harness.app.connection_for_write() as connection:
        yield connection.default_channel


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"expires": 60}, "queue 'q': expires is for temporary queues (auto_delete) only;"),
        ({"queue_arguments": {"x-expires": 60_000}}, "queue 'q': expires is for temporary queues"),
        ({"message_ttl": 60}, "'x-message-ttl' is not supported; give each task `expires`"),
        ({"max_length": 5}, "'x-max-length' is not supported; no message is ever dropped"),
        ({"max_length_bytes": 5}, "'x-max-length-bytes' is not supported; no message is ever dropped"),
        ({"max_priority": 255}, "max_priority 255 is not supported; priorities are 0 to 9"),
        ({"queue_arguments": {"x-max-priority": "high"}}, "max_priority 'high' is not supported"),
        ({"queue_arguments": {"x-queue-type": "quorum"}}, "queue type 'quorum' is not supported; leave it out"),
        ({"queue_arguments": {"x-dead-letter-exchange": "d"}}, "dead letters go to the queue `dead-letter`"),
        ({"queue_arguments": {"x-single-active-consumer": True}}, "limit the queue to one task at once"),
        ({"queue_arguments": {"x-anything": 1}}, "the argument 'x-anything' is not supported; leave it out"),
        ({"binding_arguments": {"x-match": "all"}}, "binding_arguments are not supported: x-match"),
        ({"exchange": kombu.Exchange("e", type="headers")}, "exchange 'e': type 'headers' is not supported;"),
        ({"exchange": kombu.Exchange("e", arguments={"alternate-exchange": "a"})}, "not supported: alternate-exchange"),
    ],
)
def test_what_would_be_ignored_is_refused(channel: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UnsupportedArgumentError, match=re.escape(text)) as caught:
        kombu.Queue("q", **{"exchange": kombu.Exchange("e"), **options}).bind(channel).declare()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"expires": 60, "auto_delete": True},
        {"expires": 60, "message_ttl": 300, "exclusive": True},
        {"max_priority": 10},
        {"queue_arguments": {"x-queue-type": "classic"}},
        {"durable": False, "exchange": kombu.Exchange("e", type="topic", durable=False, delivery_mode=1)},
    ],
)
def test_what_is_supported_is_declared(channel: Any, options: dict[str, Any]) -> None:
    queue = kombu.Queue("q", **{"exchange": kombu.Exchange("e"), **options}).bind(channel)
    queue.declare()
    queue.delete()


def test_a_consumer_that_asks_for_a_rank_is_refused(channel: Any) -> None:
    queue = kombu.Queue("q", kombu.Exchange("e"), consumer_arguments={"x-priority": 5})
    with pytest.raises(UnsupportedArgumentError, match="consumer_arguments are not supported: x-priority"):
        kombu.Consumer(channel, [queue]).consume()


def test_a_publication_that_should_expire_is_refused_unless_it_is_a_task(valkey_harness: BrokerHarness) -> None:
    app = valkey_harness.app
    with app.connection_for_write() as connection:
        with pytest.raises(UnsupportedArgumentError, match="for tasks only, as `expires`"):
            connection.Producer().publish({}, routing_key="q", expiration=5)
        app.send_task("record", queue="q", expires=5, connection=connection)
    assert valkey_harness.control.counts("q").waiting == 1


def test_a_worker_of_such_a_queue_does_not_start(valkey_harness: BrokerHarness, tmp_path: Path) -> None:
    (tmp_path / "expiring.py").write_text(
        "import kombu\nfrom tests.broker.app import app\napp.conf.task_queues = [kombu.Queue('q', expires=60)]\n"
    )
    command = [sys.executable, "-m", "celery", "-A", "expiring", "worker", "-P", "solo"]
    env = {"TEST_BROKER_URL": valkey_harness.url, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("Error: queue 'q': expires is for temporary queues")
    assert "Traceback" not in ended.stderr


def test_a_consumer_without_a_loop_gets_one_message_a_call(valkey_harness: BrokerHarness) -> None:
    """`drain_events` waits for a single event: who asks for one is not handed three."""
    bodies: list[Any] = []
    with valkey_harness.app.connection_for_write() as connection:
        queue = kombu.Queue("q", kombu.Exchange("e"), routing_key="q")
        for number in range(3):
            connection.Producer().publish(number, exchange=queue.exchange, routing_key="q", declare=[queue])

        def keep(body: Any, message: Any) -> None:
            bodies.append(body)
            message.ack()

        with connection.Consumer([queue], callbacks=[keep]):
            connection.drain_events(timeout=5)
            assert bodies == [0]
            connection.drain_events(timeout=5)
        assert bodies == [0, 1]


def test_a_temporary_queue_keeps_a_message_for_the_shorter_time(valkey_harness: BrokerHarness) -> None:
    with valkey_harness.app.connection_for_write() as connection:
        queue = kombu.Queue("q", kombu.Exchange("e"), routing_key="q", expires=600, message_ttl=60, auto_delete=True)
        connection.Producer().publish({}, exchange=queue.exchange, routing_key="q", declare=[queue])
    keys = valkey_harness.keys()
    (key,) = [name for name in keys if "message:" in name]
    left: Any = valkey_harness.broker.pttl(key)
    assert 0 < left <= 60_000
