"""A plain `@app.task` that fails for good can be run again, with the arguments that it had."""

import json
from functools import partial
from pathlib import Path

import pytest
from sqlmodel import col, select

from taskyard.history.models import DeadLetter
from taskyard.history.queries.runs import find_run
from tests.databases import Database
from tests.fixtures.applications import Command
from tests.history import records_app
from tests.history.test_worker import LIMIT, working
from tests.servers import Server
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("pool", "verb"), [("threads", "jobs"), ("prefork", "dlq")])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_plain_task_that_failed_for_good_is_run_again(  # noqa: PLR0913, PLR0917 - fixtures
    app_database: Database, valkey: Server, tmp_path: Path, command: Command, pool: str, verb: str
) -> None:
    run_id = records_app.plain.delay(str(tmp_path), times=3).id
    with working(pool, app_database.url, valkey, tmp_path):
        wait_for(partial(open_dead_letters, app_database), LIMIT, "it has failed")
        wait_for(partial(is_in, app_database, run_id, "failed"), LIMIT, "its failure is recorded")
        with app_database.session() as session:
            (dead_letter,) = session.scalars(select(DeadLetter)).all()
        assert (dead_letter.task, dead_letter.reason) == ("records.plain", "exhausted")
        assert "not mended" in (dead_letter.error_message or "")
        (tmp_path / "mended").touch()

        what = ("jobs", "retry", run_id) if verb == "jobs" else ("dlq", "redrive", str(dead_letter.id), "--yes")
        answer = command(*what, "--reason", "it is mended", "--json")
        assert answer.exit_code == 0, answer.stderr
        wait_for((tmp_path / "done").exists, LIMIT, "it ran again")

        assert (tmp_path / "done").read_text() == "3"
        assert open_dead_letters(app_database) == 0
        again = json.loads(answer.stdout)["new_run_id"] if verb == "jobs" else None
        if again:
            wait_for(partial(is_in, app_database, again, "succeeded"), LIMIT, "its success is recorded")


def open_dead_letters(database: Database) -> int:
    with database.session() as session:
        return len(session.scalars(select(DeadLetter).where(col(DeadLetter.state) == "open")).all())


def is_in(database: Database, run_id: str, state: str) -> bool:
    with database.session() as session:
        run = find_run(session, run_id)
        return run is not None and run.state == state
