"""Secrets and bodies stay where they belong: in their columns and on the way to the receiver, nowhere else."""

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis
from sqlalchemy import text

from taskyard.webhooks.delivery.endpoints import register
from tests.commands import command_of
from tests.system.webhook_platform import LIMIT, WebhookPlatform
from tests.waiting import wait_for
from tests.webhooks.receivers import Receiver, Reply

IN_BODY = "marker-of-the-body-5b1f"
IN_ANSWER = "marker-of-the-answer-9c2e"
MASTER_KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
PRIVATE_COLUMNS = {
    ("taskyard_webhook_events", "body"),
    ("taskyard_webhook_attempts", "excerpt"),  # the receiver's words, kept for its owner
}


def test_secrets_and_bodies_are_in_no_message_log_event_listing_or_foreign_table(
    sqlite_platform: WebhookPlatform, receiver: Receiver
) -> None:
    """One delivery that arrives, one that is exhausted and redriven, one endpoint that is gone and disabled."""
    platform = sqlite_platform
    with platform.database.session() as session, session.begin():
        endpoint, secret = register(session, platform.webhook_rows.settings, receiver.url, ["*"])
    answer = IN_ANSWER.encode()
    receiver.answers(*[Reply(500, body=answer)] * 7, Reply(200, body=answer), Reply(410, body=answer))
    markers = [*forms(IN_BODY), *forms(secret.removeprefix("whsec_")), *forms(MASTER_KEY)]

    with monitored(platform) as traffic:
        worker = platform.worker()
        (spent,) = platform.emit(data={"note": IN_BODY})
        platform.wait_for_states(exhausted=1)
        (letter,) = platform.wait_for_dead_letters(1)
        platform.redrive(letter.id, times=1)
        platform.wait_for_states(delivered=1)
        (gone,) = platform.emit(data={"note": IN_BODY})
        platform.wait_for_states(delivered=1, exhausted=1)
        platform.wait_for_dead_letters(2)
        wait_for(lambda: runs_in(platform) >= 3, LIMIT, "the audit has the runs")
        listings = output_of_all_commands(platform, [spent, gone], str(endpoint.id))
        worker.stop()

    assert IN_BODY.encode() in receiver.requests[0].body, "the receiver got it"
    assert_free_of(bytes(traffic), [*markers, *forms(IN_ANSWER)], "broker traffic")
    assert_free_of(contents_of(platform.broker.url), [*markers, *forms(IN_ANSWER)], "broker contents")
    assert_free_of(worker.logs().encode(), [*markers, *forms(IN_ANSWER)], "worker log")
    assert_free_of(listings.encode(), markers, "command line")
    for table, column, value in columns_of(platform):
        if (table, column) not in PRIVATE_COLUMNS:
            assert_free_of(value, [*markers, *forms(IN_ANSWER)], f"{table}.{column}")


def test_the_search_would_find_a_marker_in_every_form(sqlite_platform: WebhookPlatform) -> None:
    """The test of the test: plain and base64 at any offset, in the broker and in the database."""
    with sqlite_platform.broker.client() as client:
        client.rpush("a-list", "x" + base64.b64encode(f"ab{IN_BODY}".encode()).decode())
    sqlite_platform.webhook_rows.endpoint(description=IN_BODY)

    with pytest.raises(AssertionError, match="broker contents"):
        assert_free_of(contents_of(sqlite_platform.broker.url), forms(IN_BODY), "broker contents")
    assert any(IN_BODY.encode() in value for _, _, value in columns_of(sqlite_platform))


def forms(marker: str) -> list[bytes]:
    """The marker as it is, and inside base64 at each of the three offsets, without the edges that neighbours change."""
    raw = marker.encode()
    shifted = [base64.b64encode(b"\0" * offset + raw)[4 if offset else 0 : -4] for offset in range(3)]
    return [raw, *shifted]


def assert_free_of(data: bytes, markers: list[bytes], place: str) -> None:
    for marker in markers:
        at = data.find(marker)
        assert at < 0, f"{place} holds {data[max(0, at - 200) : at + len(marker) + 50]!r}"


@contextmanager
def monitored(platform: WebhookPlatform) -> Iterator[bytearray]:
    """Collect every command that the broker's server is given, those of its scripts too."""
    seen = bytearray()
    with socket.create_connection(("127.0.0.1", platform.broker.port)) as line:

        def listen() -> None:
            while data := line.recv(65536):
                seen.extend(data)

        line.sendall(b"MONITOR\r\n")
        listener = Thread(target=listen, daemon=True)
        listener.start()
        wait_for(lambda: seen.startswith(b"+OK"), LIMIT, "the monitor listens")
        yield seen
        line.shutdown(socket.SHUT_RDWR)
        listener.join(10)
    assert b"webhooks.deliver" in seen, "it saw the messages"


def contents_of(url: str) -> bytes:
    """All that the broker's server keeps, as it dumps it when told not to compress."""
    found: list[bytes] = []
    with Redis.from_url(url) as client:
        client.config_set("rdbcompression", "no")
        for key in client.scan_iter("*"):
            found += [key, client.dump(key) or b""]
    return b"\n".join(found)


def columns_of(platform: WebhookPlatform) -> Iterator[tuple[str, str, bytes]]:
    with platform.database.session() as session:
        tables = session.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars().all()
        for table in tables:
            for row in session.execute(text(f'SELECT * FROM "{table}"')).mappings():  # noqa: S608 - names from the schema
                for column, value in row.items():
                    yield table, str(column), value if isinstance(value, bytes) else str(value).encode()


def runs_in(platform: WebhookPlatform) -> int:
    with platform.database.session() as session:
        return int(
            session.execute(text("SELECT count(*) FROM taskyard_runs WHERE task = 'webhooks.deliver'")).scalar_one()
        )


def output_of_all_commands(platform: WebhookPlatform, events: list[str], endpoint: str) -> str:
    deliveries = [str(platform.delivery_of(event)) for event in events]
    letters = platform.dead_letters()
    calls: list[tuple[Any, list[str]]] = [
        (command_of("webhooks"), ["endpoints", "ls"]),
        (command_of("webhooks"), ["endpoints", "show", endpoint]),
        (command_of("webhooks"), ["deliveries", "ls"]),
        *[(command_of("webhooks"), ["deliveries", "show", delivery]) for delivery in deliveries],
        (command_of("dlq"), ["ls"]),
        *[(command_of("dlq"), ["show", str(letter.id)]) for letter in letters],
        (command_of("jobs"), ["ls"]),
        *[(command_of("jobs"), ["show", letter.run_id]) for letter in letters],
    ]
    said = ""
    for group, words in calls:
        for extra in ([], ["--json"]):
            result = CliRunner().invoke(group, [*words, *extra])
            assert result.exit_code == 0, (words, result.output, result.exception)
            said += result.output
    return said
