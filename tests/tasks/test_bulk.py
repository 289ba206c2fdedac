"""Bulk enqueueing: what copies of a message are equal to, and when there are none."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import pytest
from celery.signals import before_task_publish
from redis import Redis

from taskyard.broker.admin.queue_control import QueueControl
from taskyard.broker.protocol.header import HEADER
from taskyard.broker.transport import bulk_publish
from taskyard.settings.queues import MAINTENANCE
from taskyard.tasks.call_options import CallOptions
from taskyard.tasks.declaration import task
from taskyard.tasks.errors import InvalidPayloadError
from taskyard.tasks.payloads import MAX_BYTES, Hidden, Payload
from taskyard.tasks.sending import enqueue_many
from tests.app_broker import use_broker
from tests.servers import Server

ENQUEUED = [f"item {number}" for number in range(5)]
OWN = ("id", "root_id", "origin")  # headers that are each message's own


class Item(Payload):
    """A field to see, and one to hide."""

    name: str
    token: Annotated[str, Hidden()] = "t0ken"


@task("tests.bulk", Item, queue=MAINTENANCE)
def store(payload: Item) -> None:
    """Do nothing."""


@pytest.fixture
def broker(valkey: Server) -> Iterator[Redis]:
    """The server that this process enqueues to."""
    use_broker(valkey.url)
    with valkey.client() as client:
        yield client


def items(*names: str) -> list[Item]:
    return [Item(name=name) for name in names or ENQUEUED]


def waiting(broker: Redis) -> dict[str, dict[str, Any]]:
    """The stored messages by their run ids, with their bodies read."""
    found: dict[str, dict[str, Any]] = {}
    for key in broker.scan_iter("taskyard:message:*"):
        fields: Any = broker.hgetall(key)
        envelope = json.loads(fields.pop("m"))
        found[fields["i"]] = {**envelope, "body": json.loads(envelope["body"]), "fields": fields}
    return found


def without_its_own(message: dict[str, Any]) -> dict[str, Any]:
    headers = {name: value for name, value in message["headers"].items() if name not in OWN}
    properties = {k: v for k, v in message["properties"].items() if k not in {"correlation_id", "delivery_tag"}}
    fields = {name: value for name, value in message["fields"].items() if name not in {"i", "n", "t"}}
    return {**message, "headers": headers, "properties": properties, "fields": fields}


def test_a_copy_is_what_celery_publishes_for_a_single_call(broker: Redis) -> None:
    options: CallOptions = {"priority": "high", "group_key": "g", "user_id": "ann", "max_attempts": 2, "time_limit": 9}
    single = store.apply_async(kwargs={"name": "item 4"}, **options)

    ids = enqueue_many(store, items(), **options)

    messages = waiting(broker)
    assert without_its_own(messages[ids[4]]) == without_its_own(messages[single.id])
    assert messages[ids[4]]["headers"]["root_id"] == messages[ids[4]]["properties"]["correlation_id"] == ids[4]
    tags = {message["properties"]["delivery_tag"] for message in messages.values()}
    assert len(messages) == len(tags) == 6


def test_ids_come_in_the_order_of_the_payloads(broker: Redis) -> None:
    ids = enqueue_many(store, items())

    messages = waiting(broker)
    assert [messages[run_id]["body"][1]["name"] for run_id in ids] == ENQUEUED
    assert all(UUID(run_id) for run_id in ids)


def test_hidden_fields_stay_hidden_in_copies(broker: Redis) -> None:
    *_, last = enqueue_many(store, items())

    headers = waiting(broker)[last]["headers"]
    assert headers[HEADER]["args"]["token"] == "***"
    assert "t0ken" not in json.dumps(headers)


def test_each_payload_may_have_options_of_its_own(broker: Redis) -> None:
    def each(item: Item) -> CallOptions:
        number = int(item.name[-1])
        return {"group_key": f"g{number}", "priority": number, "countdown": float(number * 1000)}

    ids = enqueue_many(store, items(), each=each)
    single = store.apply_async(kwargs={"name": "item 4"}, **each(Item(name="item 4")))

    messages = waiting(broker)
    for late in (messages[ids[4]], messages[single.id]):
        assert datetime.fromisoformat(late["headers"].pop("eta")) > datetime.now(UTC) + timedelta(seconds=3900)
    assert without_its_own(messages[ids[4]]) == without_its_own(messages[single.id])
    fields = [messages[run_id]["fields"] for run_id in ids]
    assert [(one["g"], one["p"]) for one in fields] == [(f"g{number}", str(number)) for number in range(5)]
    delayed: Any = broker.zrange("taskyard:delayed:maintenance", 0, -1, withscores=True)
    (_, first), *rest = delayed
    assert [round((due - first) / 1000) for _, due in rest] == [1000, 2000, 3000, 3000]


def test_a_different_option_that_is_no_copys_takes_celerys_way(broker: Redis) -> None:
    """The time limit stands in a header that copies share; each message still has its own."""
    limits: dict[str, CallOptions] = {"item 1": {"time_limit": 5.0}, "item 3": {"time_limit": 7.0}}

    ids = enqueue_many(store, items(), each=lambda item: limits.get(item.name, {}))

    messages = waiting(broker)
    found = [messages[run_id]["headers"]["timelimit"][0] for run_id in ids]
    assert found == [None, 5.0, None, 7.0, None]


def test_a_taken_dedup_key_gives_the_run_that_holds_it(broker: Redis) -> None:
    holder = store.apply_async(kwargs={"name": "first"}, dedup_key="item 3")

    ids = enqueue_many(store, items(), each=lambda item: {"dedup_key": item.name})

    assert ids[3] == holder.id
    assert len(waiting(broker)) == 5


def test_a_listener_hears_of_every_message(broker: Redis) -> None:
    """A tracing library adds its headers here: each message must pass by it."""
    heard: list[str] = []

    def listen(headers: dict[str, Any], **_: Any) -> None:
        heard.append(headers["id"])
        headers["traceparent"] = headers["id"]

    before_task_publish.connect(listen)
    try:
        ids = enqueue_many(store, items())
    finally:
        before_task_publish.disconnect(listen)

    assert heard == ids
    assert all(message["headers"]["traceparent"] == run_id for run_id, message in waiting(broker).items())


def test_copies_are_what_is_put_without_listeners(broker: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the other tests here would compare Celery with itself."""
    put: list[str] = []
    original = bulk_publish.MessageCopies.put

    def note(*words: Any) -> str:
        put.append(original(*words))
        return put[-1]

    monkeypatch.setattr(bulk_publish.MessageCopies, "put", note)

    ids = enqueue_many(store, items())

    assert put == ids[1:]
    assert len(waiting(broker)) == 5


def test_nothing_is_sent_when_one_payload_is_too_large(broker: Redis) -> None:
    with pytest.raises(InvalidPayloadError, match="store the data"):
        enqueue_many(store, items("small", "x" * MAX_BYTES, "small"))
    with pytest.raises(ValueError, match="needs a dedup_key"):
        enqueue_many(store, items(), each=lambda _: {"throttle": timedelta(1)})

    assert waiting(broker) == {}


def test_more_than_one_call_to_the_broker_carries_them_all(broker: Redis) -> None:
    ids = enqueue_many(store, [Item(name=str(number)) for number in range(1201)])

    assert len(set(ids)) == QueueControl(broker).counts("maintenance").waiting == 1201
