"""The store of dead letters, and the task that fills it."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis

from taskyard.database.columns import utc_now
from taskyard.database.paging import BadCursorError, write_cursor
from taskyard.history.dead_letters import (
    DeadLetterFilter,
    count_dead_letters,
    find_dead_letter,
    insert_dead_letter,
    list_dead_letters,
)
from taskyard.history.models import DeadLetter
from taskyard.history.writer.event_writer import EventWriter
from taskyard.tasks.dead_letters.task import BuryRun, bury, dead_letter_row
from tests.databases import Database
from tests.history.dead_letter_rows import FAILED_AT, put, report
from tests.history.event_streams import BEGIN_MS, PREFIX, append
from tests.servers import Server


def test_a_failed_run_is_buried_once_however_often_its_letter_comes(app_database: Database) -> None:
    facts = report()
    for _ in range(3):
        bury.handler(BuryRun.from_wire(facts))  # type: ignore[attr-defined]  # of the task class
    with app_database.session() as session:
        (letter,) = list_dead_letters(session, DeadLetterFilter()).rows

    assert (letter.run_id, letter.reason, letter.error_type) == (facts["run_id"], "exhausted", "ValueError")
    assert letter.body == b'[[], {"name": "Ada", "token": "hunter2"}, ' + letter.body.split(b", ", 3)[3]
    assert letter.first_failed_at == letter.failed_at == FAILED_AT


def test_each_attempt_that_ends_a_run_has_its_own_letter(database: Database) -> None:
    with database.session() as session:
        put(session, run_id="run-1", attempt=1)
        put(session, run_id="run-1", attempt=2)

        assert count_dead_letters(session, DeadLetterFilter()) == 2


def test_a_letter_keeps_the_bytes_of_a_message_that_is_no_message(database: Database) -> None:
    with database.session() as session:
        letter = put(session, raw=b"\x80\0not json", task=None, headers=None, reason="malformed")
        seen = find_dead_letter(session, letter.id)

        assert seen is not None
        assert (seen.body, seen.task, seen.headers) == (b"\x80\0not json", None, None)


@pytest.mark.parametrize(
    "facts",
    [
        {"message": "m\0" * 9999, "traceback": "t\n" * 99_999, "error": "E" * 999},
        {"run_id": "r" * 999, "queue": "q" * 999, "task": "t" * 999, "reason": "x" * 99},
        {"attempt": 2**40, "headers": {"note": "a\0\ud800", "nested": [float(1)]}},
        {"body": "this is no base64!"},
        {"error": "", "message": "", "an_unknown_field": 1},
    ],
    ids=["long texts", "long names", "odd values", "no base64", "unknown field"],
)
def test_no_report_is_too_odd_to_be_stored(database: Database, facts: dict[str, Any]) -> None:
    """A letter that the database refuses would be tried for ever."""
    with database.session() as session:
        put(session, **facts)

        assert count_dead_letters(session, DeadLetterFilter()) == 1


def test_the_first_failure_comes_from_the_audit(valkey: Server, database: Database) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        append(client, "queued", "run-1")
        append(client, "retrying", "run-1", after_ms=1000)
        append(client, "failed", "run-1", attempt=2, after_ms=5000)
        EventWriter(client, database.engine, PREFIX).drain()
    with database.session() as session:
        letter = put(session, run_id="run-1", attempt=2)

        assert letter.first_failed_at is not None
        assert letter.first_failed_at.timestamp() * 1000 == BEGIN_MS + 1000


def test_letters_of_one_cause_share_a_signature() -> None:
    one, two, other = (
        dead_letter_row(BuryRun.from_wire(report(message=text)))
        for text in ("order 17 of 3f2504e0-4f89-41d3-9a0c-0305e82c3301", f"order 4 of {uuid4()}", "no more orders")
    )

    assert one.error_signature == two.error_signature != other.error_signature


def test_pages_show_each_letter_once_also_when_others_arrive_in_between(database: Database) -> None:
    with database.session() as session:
        for number in range(25):
            put(session, failed_at=(FAILED_AT - timedelta(seconds=number // 3)).isoformat())  # some at the same moment
        seen: list[DeadLetter] = []
        after = None
        for size in (10, 10, 10):
            page = list_dead_letters(session, DeadLetterFilter(), limit=size, after=after)
            seen += page.rows
            after = page.after
            put(session, failed_at=utc_now().isoformat())

    assert len({letter.id for letter in seen}) == len(seen) == 25
    assert after is None
    assert seen == sorted(seen, key=lambda letter: letter.failed_at, reverse=True)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (DeadLetterFilter(), 3),
        (DeadLetterFilter(state=None), 3),
        (DeadLetterFilter(state="discarded"), 0),
        (DeadLetterFilter(task="records.greet"), 2),
        (DeadLetterFilter(queue="other"), 1),
        (DeadLetterFilter(reason="time_limit"), 1),
        (DeadLetterFilter(since=FAILED_AT), 2),
        (DeadLetterFilter(until=FAILED_AT), 1),
    ],
)
def test_filters_choose_letters(database: Database, wanted: DeadLetterFilter, count: int) -> None:
    with database.session() as session:
        put(session)
        put(session, reason="time_limit")
        put(session, task="other.task", queue="other", failed_at=(FAILED_AT - timedelta(days=1)).isoformat())

        assert count_dead_letters(session, wanted) == len(list_dead_letters(session, wanted).rows) == count


@pytest.mark.parametrize("cursor", ["x", "", "AAAA", write_cursor(FAILED_AT, "no uuid")])
def test_a_text_that_is_no_cursor_is_refused(database: Database, cursor: str) -> None:
    with database.session() as session, pytest.raises(BadCursorError):
        list_dead_letters(session, DeadLetterFilter(), after=cursor)


def test_a_second_insert_says_that_it_changed_nothing(database: Database) -> None:
    letter = dead_letter_row(BuryRun.from_wire(report()))
    with database.session() as session:
        assert insert_dead_letter(session, letter)
        assert not insert_dead_letter(session, letter)


WRONG = [{"task": 7}, {"attempt": "x"}, {"headers": 5}, {"failed_at": "soon"}, {"body": None}]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_letter_of_which_a_field_is_wrong_is_stored_in_its_last_form(
    app_database: Database, wrong: dict[str, object]
) -> None:
    """Refused, it would be tried for ever, and its message would stay dead in the broker without a row."""
    facts = report() | wrong
    bury.handler(BuryRun.from_wire(facts))  # type: ignore[attr-defined]  # of the task class
    with app_database.session() as session:
        (letter,) = list_dead_letters(session, DeadLetterFilter()).rows
    assert (letter.run_id, letter.reason) == (facts["run_id"], "exhausted")
