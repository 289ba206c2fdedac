"""Redrive and discard: exactly one run for each dead letter, whoever asks, whatever dies in between."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu.exceptions import OperationalError
from sqlmodel import Session, col, update

from taskyard.database.columns import utc_now
from taskyard.database.engine import open_session
from taskyard.history.dead_letters import claim_for_redrive, find_dead_letter
from taskyard.history.models import DeadLetter
from taskyard.settings.queues import DEFAULT
from taskyard.tasks.dead_letters.redrive import (
    GRACE,
    DeadLetterNotFoundError,
    NotRedrivableError,
    discard,
    redrive,
    redriven_run_id,
)
from tests.databases import Database
from tests.history.dead_letter_rows import body_of, envelope_of, put
from tests.servers import Server


def sent(valkey: Server) -> list[dict[str, Any]]:
    """The messages that wait in the task's queue."""
    with valkey.client() as client:
        found = [client.hmget(key, "q", "m") for key in client.scan_iter("taskyard:message:*")]
        return [json.loads(str(message)) for queue, message in found if queue == DEFAULT.name]


def test_a_redriven_letter_is_the_same_task_with_fresh_attempts(app_database: Database, valkey: Server) -> None:
    headers = {"taskyard": {"attempt": 3, "max_attempts": 4, "group_key": "g", "user_id": "u"}, "root_id": "root-1"}
    with app_database.session() as session:
        letter = put(session, raw=envelope_of({"name": "Ada", "token": "hunter2"}, priority=9), headers=headers)
        run = redrive(session, letter.id, by="ada", reason="repaired")
        after = find_dead_letter(session, letter.id)

    (message,) = sent(valkey)
    facts = message["headers"]["taskyard"]
    assert message["headers"]["id"] == run.id == redriven_run_id(letter.id)
    assert message["headers"]["task"] == "records.greet"
    assert message["headers"]["root_id"] == "root-1"
    assert message["properties"]["priority"] == 9
    assert facts["redrive_of"] == str(letter.id)
    assert (facts["max_attempts"], facts["group_key"], facts["user_id"]) == (4, "g", "u")
    assert facts.get("attempt", 1) == 1
    assert facts["args"]["token"] == "***"
    assert after is not None
    assert (after.state, after.redriven_run_id, after.resolved_by, after.resolution) == (
        "redriven",
        run.id,
        "ada",
        "repaired",
    )
    assert after.redrive_sent_at is not None


def test_a_second_redrive_returns_the_run_that_is_there(app_database: Database, valkey: Server) -> None:
    with app_database.session() as session:
        letter = put(session)
        first = redrive(session, letter.id, by="ada")
        second = redrive(session, letter.id, by="bob", is_forced=True)

    assert (first.is_duplicate, second.is_duplicate) == (False, True)
    assert first.id == second.id
    assert len(sent(valkey)) == 1


def test_of_ten_threads_one_redrives(app_database: Database, valkey: Server) -> None:
    with app_database.session() as session:
        letters = [put(session).id for _ in range(5)]

    def race(_: int) -> list[tuple[str, bool]]:
        with open_session() as session:
            runs = [redrive(session, letter, by="ada") for letter in letters]
            return [(run.id or "", run.is_duplicate) for run in runs]

    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(race, range(10)))

    for answers in zip(*results, strict=True):
        assert len({run_id for run_id, _ in answers}) == 1
        assert [is_duplicate for _, is_duplicate in answers].count(False) == 1
    assert len(sent(valkey)) == 5


def test_a_redrive_whose_process_died_before_it_sent_is_found_and_repeated(
    app_database: Database, valkey: Server
) -> None:
    with app_database.session() as session:
        letter = put(session)
        claim_for_redrive(session, letter.id, redriven_run_id(letter.id), by="ada", reason="")
        session.commit()

        fresh = redrive(session, letter.id, by="bob")
        assert fresh.is_duplicate, "it may be on its way"
        assert sent(valkey) == []

        age(session, letter)
        repeated = redrive(session, letter.id, by="bob")
        assert (repeated.is_duplicate, repeated.id) == (False, redriven_run_id(letter.id))
        assert len(sent(valkey)) == 1
        age(session, letter)
        assert redrive(session, letter.id, by="eve").is_duplicate, "confirmed"


def test_a_forced_redrive_does_not_wait(app_database: Database, valkey: Server) -> None:
    with app_database.session() as session:
        letter = put(session)
        claim_for_redrive(session, letter.id, redriven_run_id(letter.id), by="ada", reason="")
        session.commit()

        assert not redrive(session, letter.id, by="bob", is_forced=True).is_duplicate
    assert len(sent(valkey)) == 1


def test_a_broker_that_is_away_leaves_the_letter_open(app_database: Database, valkey: Server) -> None:
    with app_database.session() as session:
        letter = put(session)
        valkey.stop()
        try:
            with pytest.raises(OperationalError):
                redrive(session, letter.id, by="ada")
        finally:
            valkey.start()
        seen = find_dead_letter(session, letter.id)
        assert seen is not None
        assert (seen.state, seen.redriven_run_id, seen.resolved_by) == ("open", None, None)
        session.commit()

        assert not redrive(session, letter.id, by="ada").is_duplicate
    assert len(sent(valkey)) == 1


def test_an_edited_payload_is_checked_and_sent(app_database: Database, valkey: Server) -> None:
    with app_database.session() as session:
        letter = put(session, {"name": 17})
        with pytest.raises(NotRedrivableError, match="name"):
            redrive(session, letter.id, by="ada")
        with pytest.raises(NotRedrivableError, match="nane"):
            redrive(session, letter.id, by="ada", fields={"nane": "Ada"})
        redrive(session, letter.id, by="ada", fields={"name": "Ada"})

    (message,) = sent(valkey)
    assert message["headers"]["taskyard"]["args"]["name"] == "Ada"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"task": "no.such.task"}, "unknown task 'no.such.task'"),
        ({"task": None}, "unknown task"),
        ({"raw": b"\x80not json"}, "not JSON"),
        ({"raw": b"[]"}, "not \\[args, kwargs, embed\\]"),
        ({"raw": b'[["Ada"], {}, {}]'}, "positional"),
        ({"raw": body_of({"name": "Ada", "age": 3})}, "age"),
    ],
)
def test_what_cannot_run_stays_open_and_says_why(
    app_database: Database, valkey: Server, facts: dict[str, Any], reason: str
) -> None:
    with app_database.session() as session:
        letter = put(session, **facts)
        with pytest.raises(NotRedrivableError, match=reason):
            redrive(session, letter.id, by="ada")
        session.rollback()
        seen = find_dead_letter(session, letter.id)
        assert seen is not None
        assert seen.state == "open"
    assert sent(valkey) == []


def test_the_domain_makes_its_row_ready_once(app_database: Database, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    with app_database.session() as session:
        letter = put(session, {"name": "Ada", "diary": str(diary)})
        redrive(session, letter.id, by="ada")
        redrive(session, letter.id, by="bob")

    assert diary.read_text() == "ready\n"


def test_a_discarded_letter_is_closed_with_its_reason(app_database: Database, valkey: Server) -> None:
    with app_database.session() as session:
        letter = put(session)
        discard(session, letter.id, by="ada", reason="obsolete")
        seen = find_dead_letter(session, letter.id)
        assert seen is not None
        assert (seen.state, seen.resolved_by, seen.resolution) == ("discarded", "ada", "obsolete")
        with pytest.raises(NotRedrivableError, match="discarded"):
            redrive(session, letter.id, by="bob")
        with pytest.raises(NotRedrivableError, match="discarded already, by ada"):
            discard(session, letter.id, by="bob", reason="again")
    assert sent(valkey) == []


def test_an_unknown_letter_is_not_found(app_database: Database) -> None:
    with app_database.session() as session:
        with pytest.raises(DeadLetterNotFoundError):
            redrive(session, uuid4(), by="ada")
        with pytest.raises(DeadLetterNotFoundError):
            discard(session, uuid4(), by="ada", reason="")


def age(session: Session, letter: DeadLetter) -> None:
    """Let the letter's mark be older than the time that another redrive is given to send."""
    long_ago = utc_now() - 2 * GRACE
    session.connection().execute(update(DeadLetter).where(col(DeadLetter.id) == letter.id).values(resolved_at=long_ago))
    session.commit()
