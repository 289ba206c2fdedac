"""What a caller may ask for, and how bad input is refused before anything is sent."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.wire import HEADER
from config.queues import MAINTENANCE
from tasks.app import find_task, send, task
from tasks.calls import message_options
from tasks.errors import InvalidPayloadError, UnknownTaskError
from tasks.payloads import Payload


class Job(Payload):
    """One field."""

    name: str = "x"


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
        ({"countdown": 1, "eta": datetime.now(UTC)}, "exclude each other"),
    ],
)
def test_an_option_without_meaning_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        message_options(Job().shown(), options)


def test_send_refuses_an_unknown_task_and_names_the_known_ones() -> None:
    with pytest.raises(
        UnknownTaskError, match=r"unknown task 'no\.such' \(.*celery -A module\); known: .*webhooks\.deliver"
    ):
        send("no.such", {})


def test_send_checks_the_fields() -> None:
    with pytest.raises(InvalidPayloadError, match="colour: Extra inputs"):
        send("tests.calls", {"colour": 1})


def test_a_task_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        task("tests.calls", Job, queue=MAINTENANCE)


def test_a_task_is_found_by_its_name_on_the_wire() -> None:
    assert find_task("tests.calls").payload is Job
