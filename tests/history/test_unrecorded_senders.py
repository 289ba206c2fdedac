"""A run has its task and masked arguments in the history, whoever sent it and whatever the sender's settings are."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tasks.app import app
from taskyard.history.models import Run
from taskyard.history.queries.runs import find_run
from tests.app_broker import use_broker
from tests.databases import Database
from tests.history import records_app
from tests.history.test_worker import LIMIT, database, working
from tests.servers import Server
from tests.waiting import wait_for

__all__ = ["database"]
pytestmark = pytest.mark.timeout(300)
SHOWN = {"name": "Ada", "token": "***", "diary": None}


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_run_is_recorded_whoever_sent_it(
    app_database: Database, valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    fields: dict[str, Any] = {"name": "Ada", "token": "hunter2"}
    sent = {"of a plain client": app.send_task("records.greet", kwargs=fields, ignore_result=True).id}
    wrong = app.send_task("records.greet", kwargs={"nome": "Ada", "token": "hunter2"}, ignore_result=True).id
    with recording_nothing(valkey, monkeypatch), valkey.client() as client:
        events = client.xlen("taskyard:events")
        sent["without a history"] = records_app.greet.delay(name="Ada", token="hunter2").id
        assert client.xlen("taskyard:events") == events, "its sender said nothing"
    with working(pool, app_database.url, valkey, tmp_path):
        for run_id in (*sent.values(), wrong):
            wait_for(partial(is_done, app_database, run_id), LIMIT, "all have ended")
    with app_database.session() as session:
        runs = {who: session.get_one(Run, run_id) for who, run_id in sent.items()}
        malformed = session.get_one(Run, wrong)
    for who, run in runs.items():
        assert (run.task, run.args, run.state) == ("records.greet", SHOWN, "succeeded"), who
    assert (malformed.task, malformed.args) == ("records.greet", {"nome": "***", "token": "***"})


@contextmanager
def recording_nothing(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process send as one with AUDIT_ENABLED=false does."""
    options = app.conf.broker_transport_options
    with monkeypatch.context() as patch:
        patch.setenv("AUDIT_ENABLED", "false")
        app.conf.update(broker_transport_options={**options, "writes_events": False})
        use_broker(valkey.url)
        yield
    app.conf.update(broker_transport_options=options)
    use_broker(valkey.url)


def is_done(database: Database, run_id: str) -> bool:
    with database.session() as session:
        run = find_run(session, run_id)
        return run is not None and run.finished_at is not None
