"""`/readyz` answers at once whatever the servers do, and only where it was told to listen."""

import socket
import time
from pathlib import Path

import pytest

from taskyard.monitor.health import CHECK_EVERY, GRACE
from taskyard.webhooks.models import Endpoint
from tests.databases import Database
from tests.monitor.scraping import fetch, free_port, worker
from tests.servers import Server
from tests.waiting import wait_for

LIMIT = 60  # seconds
PROBE_SECONDS = 1.0  # what a probe of Kubernetes waits by default

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def environment(app_database: Database, valkey: Server, folder: Path, port: int, **more: str) -> dict[str, str]:
    known = {"DATABASE_URL": app_database.url, "REDIS_URL": valkey.url, "TASKYARD_DATA": str(folder / "data")}
    return {**known, "METRICS_PORT": str(port), **more}


def test_a_hanging_broker_makes_it_not_ready_and_no_answer_late(
    app_database: Database, valkey: Server, tmp_path: Path
) -> None:
    port = free_port()
    with worker(tmp_path, environment(app_database, valkey, tmp_path, port)) as working:
        wait_for(lambda: fetch(port, "/readyz")[0] == 200, LIMIT, "ready", working.tail)
        took: list[float] = []

        def is_not_ready() -> bool:
            started = time.monotonic()
            status, report = fetch(port, "/readyz")
            took.append(time.monotonic() - started)
            return status == 503 and "no answer for" in report

        valkey.suspend()
        try:
            suspended_at = time.monotonic()
            wait_for(is_not_ready, LIMIT, "the hanging broker is noticed", working.tail)
            noticed_after = time.monotonic() - suspended_at
        finally:
            valkey.resume()
        assert max(took) < PROBE_SECONDS
        assert noticed_after < CHECK_EVERY + GRACE + 5, "a busy machine adds seconds, a time-out of the server 30"
        wait_for(lambda: fetch(port, "/readyz")[0] == 200, LIMIT, "ready again", working.tail)


def test_a_worker_that_cannot_sign_says_so_once_and_is_not_ready(
    app_database: Database, valkey: Server, tmp_path: Path
) -> None:
    """Who uses no webhooks needs no keys; with an endpoint each delivery would wait for nothing."""
    port = free_port()
    with worker(tmp_path, environment(app_database, valkey, tmp_path, port)) as working:
        wait_for(lambda: fetch(port, "/readyz")[0] == 200, LIMIT, "ready without endpoints", working.tail)
        with app_database.session() as session, session.begin():
            session.add(Endpoint(url="https://subscriber.example/hook"))

        def says_what_is_missing() -> bool:
            status, report = fetch(port, "/readyz")
            return status == 503 and "WEBHOOK_SECRET_KEYS is not set" in report

        wait_for(says_what_is_missing, LIMIT, "not ready for webhooks", working.tail)
        assert working.tail(10_000).count("worker.setting_missing") == 1


@pytest.mark.parametrize(("address", "is_open"), [(None, False), ("0.0.0.0", True)])  # noqa: S104 - what is tested
def test_other_hosts_reach_it_only_if_told_so(
    app_database: Database, valkey: Server, tmp_path: Path, *, address: str | None, is_open: bool
) -> None:
    """Queue names, versions and errors are not for the network."""
    port = free_port()
    more = {"METRICS_ADDRESS": address} if address else {}
    with worker(tmp_path, environment(app_database, valkey, tmp_path, port, **more)) as working:
        wait_for(lambda: fetch(port, "/healthz")[0] == 200, LIMIT, "it answers on loopback", working.tail)
        with socket.socket() as probe:  # 127.0.0.2 stands for another address of this host
            assert (probe.connect_ex(("127.0.0.2", port)) == 0) is is_open
