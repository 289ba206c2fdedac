"""Results for those who ask: on a server that was restarted, that is away, and that has no memory left."""

import time
from pathlib import Path

import pytest
from celery.result import AsyncResult
from kombu.exceptions import OperationalError

from tests.broker.harness import BrokerHarness
from tests.servers import Server

PROMPT = 10  # seconds; the machine may be busy


def ask(harness: BrokerHarness, number: int) -> "AsyncResult[int]":
    """Send a task whose result is wanted."""
    return harness.app.send_task("nothing", (number,), queue="celery", ignore_result=False)


def test_a_server_that_is_away_is_told_at_once(tmp_path: Path, recorder: Server) -> None:
    with (
        Server(tmp_path / "server", appendfsync="always") as server,
        BrokerHarness(server, recorder, tmp_path) as harness,
    ):
        before = ask(harness, 1)
        server.kill()
        with pytest.raises(OperationalError, match="refused"):
            ask(harness, 2)
        server.start()
        after = ask(harness, 3)
        harness.worker(IGNORE_RESULTS="0")
        assert (before.get(timeout=30), after.get(timeout=30)) == (1, 3)


def test_a_restarted_server_hinders_nobody(tmp_path: Path, recorder: Server) -> None:
    """The connection of before is dead, and the first to notice is who publishes next."""
    with (
        Server(tmp_path / "server", appendfsync="always") as server,
        BrokerHarness(server, recorder, tmp_path) as harness,
    ):
        runs = [ask(harness, 0)]
        for number in range(1, 4):
            server.restart()
            runs += [ask(harness, 2 * number - 1), ask(harness, 2 * number)]
        harness.worker(IGNORE_RESULTS="0")
        assert [run.get(timeout=30) for run in runs] == list(range(7))


def test_a_result_that_is_given_up_while_the_server_is_away_holds_nobody_up(tmp_path: Path, recorder: Server) -> None:
    """Wherever Python happens to collect it: Celery would try for twenty seconds to unsubscribe."""
    with (
        Server(tmp_path / "server", appendfsync="always") as server,
        BrokerHarness(server, recorder, tmp_path) as harness,
    ):
        runs = [ask(harness, number) for number in range(3)]
        server.kill()
        begin = time.monotonic()
        while runs:
            runs.pop()
        assert time.monotonic() - begin < PROMPT
        server.start()
        harness.worker(IGNORE_RESULTS="0")
        assert ask(harness, 4).get(timeout=30) == 4
