"""What a caller may ask for, and how bad input is refused before anything is sent."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from taskyard.broker.protocol.header import HEADER
from taskyard.settings.queues import MAINTENANCE
from taskyard.tasks.call_options import message_options
from taskyard.tasks.declaration import task
from taskyard.tasks.errors import InvalidPayloadError, UnknownTaskError
from taskyard.tasks.payloads import Payload
from taskyard.tasks.sending import enqueue_many, find_task, send


class Job(Payload):
    """One field."""

    name: str = "x"


class Other(Payload):
    """Of another task."""


@task("tests.calls", Job, queue=MAINTENANCE)
def job(payload: Job) -> None:
    """Do nothing."""


def header(**options: Any) -> dict[str, Any]:
    facts: dict[str, Any] = message_options(Job().shown(), options)["headers"][HEADER]
    return facts


def test_our_options_travel_in_one_header_and_celerys_stay() -> None:
    made = message_options(
        Job().shown(), {"group_key": "t1", "max_attempts": 2, "user_id": "ann", "lifo": True, "countdown": 3}
    )
    assert made["headers"][HEADER] == {
        "args": {"name": "x"},
        "group_key": "t1",
        "max_attempts": 2,
        "user_id": "ann",
        "lifo": True,
        "delay_ms": 3000,
    }
    assert (made["countdown"], made["priority"]) == (3, 5)


@pytest.mark.parametrize(
    ("options", "dedup"),
    [
        ({"dedup_key": "k"}, {"key": "k", "mode": "until_done", "ttl_ms": None}),
        ({"dedup_key": "k", "throttle": timedelta(seconds=2)}, {"key": "k", "mode": "throttle", "ttl_ms": 2000}),
        ({"dedup_key": "k", "debounce": timedelta(seconds=1)}, {"key": "k", "mode": "debounce", "ttl_ms": 1000}),
    ],
)
def test_a_dedup_key_holds_until_done_or_for_a_time(options: dict[str, Any], dedup: dict[str, Any]) -> None:
    assert header(**options)["dedup"] == dedup


@pytest.mark.parametrize(("priority", "number"), [("high", 9), ("normal", 5), ("low", 1), (0, 0), (9, 9)])
def test_a_priority_is_a_name_or_a_number(priority: str | int, number: int) -> None:
    assert message_options(Job().shown(), {"priority": priority})["priority"] == number


def test_a_moment_without_time_zone_is_utc() -> None:
    assert message_options(Job().shown(), {"eta": datetime(2030, 1, 1)})["eta"] == datetime(2030, 1, 1, tzinfo=UTC)  # noqa: DTZ001 - the subject


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"priority": "urgent"}, "use high, normal, low"),
        ({"priority": 10}, "from 0 to 9"),
        ({"priority": True}, "from 0 to 9"),
        ({"max_attempts": 0}, "at least 1"),
        ({"throttle": timedelta(seconds=1)}, "needs a dedup_key"),
        ({"dedup_key": "k", "throttle": timedelta(0)}, "longer than 0"),
        ({"dedup_key": "k", "throttle": timedelta(1), "debounce": timedelta(1)}, "exclude each other"),
        ({"countdown": -1}, "negative"),
        ({"countdown": 1, "eta": datetime(2020, 1, 1, tzinfo=UTC)}, "exclude each other"),
        *(({name: math.nan}, f"{name} nan: use a number") for name in ("countdown", "expires", "time_limit")),
        ({"countdown": math.inf}, "use a number of seconds"),
        ({"countdown": 10**30}, "at most 100 years"),
        ({"countdown": True}, "use a number of seconds"),
        ({"countdown": timedelta(1)}, "use a number of seconds"),
        ({"expires": 0}, "more than 0"),
        ({"expires": "soon"}, "use a datetime"),
        ({"eta": 5.0}, "use a datetime"),
        ({"eta": date(2020, 1, 1)}, "use a datetime"),
        ({"soft_time_limit": 2, "time_limit": 1}, "shorter than"),
        ({"max_attempts": True}, "whole number"),
        ({"max_attempts": 2.5}, "whole number"),
        ({"max_attempts": 10**30}, "up to 1000000"),
        ({"lifo": "no"}, "True or False"),
        ({"dedup_key": ""}, "leave it out"),
        ({"dedup_key": 5}, "is text"),
        ({"dedup_key": "k", "throttle": 5}, "use a timedelta"),
        ({"dedup_key": "k", "debounce": timedelta.max}, "at most 10 years"),
        ({"group_key": "a\0b"}, "control characters"),
        ({"user_id": "\ud800"}, "control characters"),
        ({"user_id": "u" * 256}, "1 to 255"),
        ({"task_id": "t" * 156}, "1 to 155"),
        ({"task_id": ""}, "1 to 155"),
        ({"max_atempts": 3}, "is it 'max_attempts'"),
        ({"routing_key": "elsewhere"}, "say queue"),
        ({"serializer": "pickle"}, "json only"),
        ({"headers": "x"}, "use a mapping"),
    ],
)
def test_an_option_without_meaning_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        message_options(Job().shown(), options)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: job.apply_async(kwargs={}, queue="nobody"), "queue 'nobody' is not declared"),  # type: ignore[call-arg]  # the subject
        (lambda: enqueue_many(job, [Job()], queue="none"), "queue 'none' is not declared"),  # type: ignore[call-arg]  # as above
        (lambda: enqueue_many(job, [Job(), Job()], task_id="t"), "names one run"),  # type: ignore[call-arg]  # as above
        (lambda: enqueue_many(job, [{"name": "x"}]), "takes a Job, not a dict"),  # type: ignore[misc]  # as above
        (lambda: job.enqueue(Other()), "takes a Job, not a Other"),  # type: ignore[arg-type]  # as above
        (lambda: job.apply_async(kwargs=["x"]), "by name, not a list"),  # type: ignore[arg-type]  # as above
    ],
)
def test_a_call_that_no_worker_could_serve_is_refused(call: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


def test_an_iso_text_is_a_moment_too() -> None:
    """Celery's own signatures carry moments as text when they travel."""
    made = message_options(Job().shown(), {"eta": "2030-01-01T00:00:00", "expires": "2030-01-02T00:00:00+01:00"})
    assert made["eta"] == datetime(2030, 1, 1, tzinfo=UTC)
    assert made["expires"] == datetime(2030, 1, 1, 23, tzinfo=UTC)


def test_send_refuses_an_unknown_task_and_names_the_known_ones_most_alike_first() -> None:
    with pytest.raises(
        UnknownTaskError, match=r"unknown task 'webhook\.deliver' \(.*celery -A module\); known: webhooks\.deliver, "
    ):
        send("webhook.deliver", {})


def test_send_checks_the_fields() -> None:
    with pytest.raises(InvalidPayloadError, match="colour: Extra inputs"):
        send("tests.calls", {"colour": 1})


def test_a_task_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        task("tests.calls", Job, queue=MAINTENANCE)


def test_a_task_is_found_by_its_name_on_the_wire() -> None:
    assert find_task("tests.calls").payload is Job
