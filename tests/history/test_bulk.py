"""Operations on many dead letters: counts that add up, whatever is aborted, killed, or done by somebody else."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, insert
from sqlmodel import col, select

from taskyard.database.engine import open_session
from taskyard.history.bulk_operations import abort, find_operation, operation_progress, start_operation
from taskyard.history.dead_letters import DeadLetterFilter, claim_for_redrive, count_dead_letters, list_dead_letters
from taskyard.history.models import BulkOperation, DeadLetter
from taskyard.history.operator_log import Operation
from taskyard.tasks.dead_letters.redrive import redriven_run_id
from taskyard.tasks.dead_letters.redrive_many import redrive_batch
from taskyard.tasks.errors import PermanentError
from taskyard.tasks.records.bulk import resolve_dead_letters
from taskyard.tasks.records.payloads import ResolveDeadLetters
from tests.databases import Database
from tests.fixtures.applications import Command
from tests.history.dead_letter_rows import body_of
from tests.monitor.scraping import worker
from tests.servers import Server
from tests.waiting import wait_for

LIMIT = 60  # seconds
WAITING = "taskyard:waiting:celery"


def fill(database: Database, count: int, **facts: Any) -> None:
    """Put many letters in, fast."""
    known = {"attempt": 1, "task": "records.greet", "queue": "celery", "reason": "exhausted", "state": "open"}
    known |= {"error_type": "E", "error_message": "m", "error_signature": "s", "body": body_of({"name": "Ada"})}
    known |= {"failed_at": datetime(2026, 1, 1, tzinfo=UTC), "headers": None}
    with database.session() as session:
        rows = [{"id": uuid4(), "run_id": str(uuid4()), **known, **facts} for _ in range(count)]
        session.connection().execute(insert(DeadLetter), rows)
        session.commit()


def start(database: Database, verb: Any = "redrive", **filters: Any) -> UUID:
    with database.session() as session:
        operation = start_operation(session, verb, DeadLetterFilter(**filters), by="ada", reason="repaired")
        session.commit()
        return operation.id


def work(operation_id: UUID, report: Callable[[int, int, str], None] = lambda *_: None) -> dict[str, int]:
    return resolve_dead_letters(ResolveDeadLetters(operation_id=operation_id), open_session, report)


def count(database: Database, state: str) -> int:
    with database.session() as session:
        return count_dead_letters(session, DeadLetterFilter(state=state))


def messages(valkey: Server) -> int:
    with valkey.client() as client:
        return int(client.zcard(WAITING))


def unfinished(valkey: Server) -> int:
    """Tasks of the maintenance queue that wait or run."""
    with valkey.client() as client:
        return sum(int(client.zcard(f"taskyard:{kind}:maintenance")) for kind in ("waiting", "active"))


def state_of(database: Database, operation_id: UUID) -> BulkOperation:
    with database.session() as session:
        found = find_operation(session, operation_id)
        assert found is not None
        return found


def test_an_operation_resolves_what_its_filter_meant_and_nothing_later(app_database: Database, valkey: Server) -> None:
    fill(app_database, 250)
    fill(app_database, 7, queue="other")
    fill(app_database, 3, body=b"no message")
    operation_id = start(app_database, queue="celery")
    fill(app_database, 5, failed_at=datetime(2100, 1, 1, tzinfo=UTC))

    assert work(operation_id) == {"resolved": 250, "refused": 3}
    operation = state_of(app_database, operation_id)
    assert (operation.state, operation.total, len(operation.refused)) == ("done", 253, 3)
    assert "not JSON" in operation.refused[0]["error"]
    assert (count(app_database, "redriven"), count(app_database, "open"), messages(valkey)) == (250, 15, 250)
    assert work(operation_id) == {"resolved": 250, "refused": 3}, "a second execution finds it done"
    assert messages(valkey) == 250


def test_a_discard_of_many_closes_them_with_the_reason(app_database: Database) -> None:
    fill(app_database, 150)
    operation_id = start(app_database, "discard")

    assert work(operation_id) == {"resolved": 150, "refused": 0}
    with app_database.session() as session:
        row = session.exec(select(DeadLetter.resolved_by, DeadLetter.resolution).distinct()).one()
        assert tuple(row) == ("ada", "repaired")


def test_what_a_killed_worker_had_marked_and_not_sent_is_sent_by_the_next(
    app_database: Database, valkey: Server
) -> None:
    fill(app_database, 20)
    operation_id = start(app_database)
    with app_database.session() as session:
        for letter_id in session.exec(select(DeadLetter.id).limit(8)).all():
            run_id = redriven_run_id(letter_id)
            claim_for_redrive(session, letter_id, run_id, by="ada", reason="", operation_id=operation_id)
        session.commit()

    assert work(operation_id) == {"resolved": 20, "refused": 0}
    assert messages(valkey) == 20


def test_an_abort_opens_again_what_was_marked_and_not_sent(app_database: Database, valkey: Server) -> None:
    fill(app_database, 20)
    operation_id = start(app_database)
    with app_database.session() as session:
        letter_id = session.exec(select(DeadLetter.id).limit(1)).one()
        claim_for_redrive(session, letter_id, redriven_run_id(letter_id), by="a", reason="", operation_id=operation_id)
        assert abort(session, operation_id, by="bob")
        assert not abort(session, operation_id, by="eve"), "it is over"
        session.commit()
    work(operation_id)

    assert (count(app_database, "open"), messages(valkey)) == (20, 0)


def test_two_operators_at_once_make_one_run_of_each(app_database: Database, valkey: Server) -> None:
    fill(app_database, 300)
    both = [start(app_database), start(app_database)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, both))
    with app_database.session() as session:
        found = [operation for each in both if (operation := find_operation(session, each))]
        done = [operation_progress(session, operation).done for operation in found]
    assert (sum(done), messages(valkey)) == (300, 300), done


def test_a_page_that_somebody_else_resolved_meanwhile_is_not_sent_again(app_database: Database, valkey: Server) -> None:
    fill(app_database, 30)
    operation = state_of(app_database, start(app_database))
    with app_database.session() as session:
        page = list_dead_letters(session, DeadLetterFilter()).rows
        session.commit()
        redrive_batch(session, operation, page)
        assert redrive_batch(session, operation, page) == []
    assert messages(valkey) == 30


@pytest.mark.usefixtures("app_database")
def test_an_unknown_operation_is_a_permanent_error() -> None:
    with pytest.raises(PermanentError):
        work(uuid4())


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "total", [pytest.param(10_000, marks=[pytest.mark.chaos, pytest.mark.timeout(600)], id="as written"), 600]
)
def test_a_redrive_that_is_aborted_at_half_adds_up_and_the_rest_follows(
    app_database: Database, valkey: Server, tmp_path: Path, command: Command, total: int
) -> None:
    fill(app_database, total)
    env = {"DATABASE_URL": app_database.url, "REDIS_URL": valkey.url}
    with worker(tmp_path, env, "worker", "-Q", "maintenance") as working:
        arguments = ("dlq", "redrive", "--all", "--yes", "--detach", "--reason", "repaired", "--json")
        first = json.loads(command(*arguments).stdout)["id"]
        wait_for(lambda: messages(valkey) >= total / 2, LIMIT, "half is done", working.tail)
        assert command("dlq", "operations", first, "--abort", "--reason", "too fast").exit_code == 0
        wait_for(lambda: not unfinished(valkey), LIMIT, "its last batch is over")
        done, left = count(app_database, "redriven"), count(app_database, "open")
        assert total / 2 <= done < total
        assert done + left == total
        shown = json.loads(command("dlq", "operations", first, "--follow", "--json").stdout)
        assert (shown["state"], shown["done"], shown["total"]) == ("aborted", done, total)
        second = command("dlq", "redrive", "--all", "--yes", "--reason", "go on", "--json")
        assert second.exit_code == 0, second.output
        assert json.loads(second.stdout)["done"] == left
    assert (count(app_database, "redriven"), count(app_database, "open"), messages(valkey)) == (total, 0, total)
    with app_database.session() as session:
        runs = session.exec(select(func.count(col(DeadLetter.redriven_run_id).distinct()))).one()
        logged = session.exec(select(Operation.verb, Operation.count).order_by(col(Operation.at))).all()
    assert runs == total
    assert [tuple(row) for row in logged] == [("dlq redrive", total), ("dlq abort", 1), ("dlq redrive", left)]
